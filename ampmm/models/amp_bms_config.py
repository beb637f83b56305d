"""The hyperparameters of AMP-BMS."""

from dataclasses import dataclass, fields

from ampmm.errors import InputError
from ampmm.models.base import Hyperparameters


@dataclass(frozen=True)
class AMPBMSConfig(Hyperparameters):
    """Hyperparameters of an AMP-BMS model; the defaults are those of the published weights."""

    elements: tuple[int, ...]  # atomic numbers it knows
    n_layers: int = 2
    n_channels: int = 8  # dipoles and quadrupoles an atom
    width: int = 128  # of hidden features and networks
    edge_width: int = 32  # of edge features
    head_width: int = 64  # of the networks for charges and polarizabilities
    n_radial: int = 8
    n_radial_mm: int = 2
    envelope_exponent: int = 6
    cutoff: float = 4.0  # QM–QM graph and repulsion, Å
    long_range_cutoff: float = 14.0  # QM–QM Coulomb and dispersion, Å
    coulomb_cutoff: float = 9.0  # QM–MM Coulomb in periodic boxes, Å
    polarization_cutoff: float = 8.0  # QM–MM polarization, Å
    polarization_scale: float = 0.35
    moment_divisor: float = 37.27404695554026  # of charges, dipoles and quadrupoles

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "elements" and not getattr(self, field.name) > 0:
                raise InputError(f"{field.name}: expected a positive number, got {getattr(self, field.name)!r}")
        if not 1.0 < self.cutoff <= self.long_range_cutoff:
            raise InputError(
                f"cutoff: expected more than 1 Å and at most long_range_cutoff ({self.long_range_cutoff} Å), got {self.cutoff}"
            )

    @property
    def n_scalars(self) -> int:
        """Anisotropic features of a pair and channel."""
        return 9

    @property
    def name(self) -> str:
        """The name of the architecture."""
        return "AMP-BMS"
