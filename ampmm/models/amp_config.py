"""The hyperparameters of AMP."""

from dataclasses import dataclass

from ampmm.errors import InputError
from ampmm.models.base import Hyperparameters
from ampmm.nn.multipoles import MAX_ORDER, n_interactions


@dataclass(frozen=True)
class AMPConfig(Hyperparameters):
    """Hyperparameters of an AMP model; the defaults are the paper's three-layer AMP(3)-DP.

    The three scales set the size of what the untrained networks return and are part of the model, not of the training.
    """

    elements: tuple[int, ...]  # atomic numbers it knows
    order: int | None = 3  # highest multipole order K; None: plain GNN
    polarization: bool = True  # -D, or -F
    long_range: bool = True  # -P
    polarization_kind: str = "pairs"  # -D: a network of every QM–MM pair (the paper's); "fields": -F, see field_polarization.py
    n_layers: int = 3
    width: int = 128  # of hidden features and networks
    n_radial: int = 20
    n_radial_weights: int = 16  # outputs of φ_b
    n_radial_weights_mm: int = 8  # of QM–MM pairs; for -F, how many fields
    envelope_exponent: int = 6
    cutoff: float = 5.0  # QM–QM graph, Å
    polarization_cutoff: float = 10.0  # QM–MM pairs of Eq. 10, Å
    multipole_scale: float = 1.0e-4  # of the coefficients c_ij and c_im
    energy_scale: float = 1.0  # of atomic energies, kJ/mol
    charge_scale: float = 1.0  # of atomic charges before conservation, e

    def __post_init__(self) -> None:
        if self.order is not None and not 0 <= self.order <= MAX_ORDER:
            raise InputError(f"order: expected 0 to {MAX_ORDER}, or None for the plain GNN, got {self.order}")
        if self.polarization_kind not in ("pairs", "fields"):
            raise InputError(f"polarization_kind: expected pairs or fields, got {self.polarization_kind!r}")
        if self.polarization and not self.order:
            raise InputError(f"polarization: a -D model needs multipoles of order 1 to {MAX_ORDER}, got order {self.order}")
        for name in ("n_layers", "width", "n_radial", "n_radial_weights", "n_radial_weights_mm", "envelope_exponent",
                     "cutoff", "polarization_cutoff", "multipole_scale", "energy_scale", "charge_scale"):  # fmt: skip
            if not 0 < getattr(self, name) < float("inf"):  # also an infinite cutoff: radial functions are of distance/cutoff
                raise InputError(f"{name}: expected a positive, finite number, got {getattr(self, name)!r}")

    @property
    def n_scalars(self) -> int:
        """Interaction coefficients of a pair (Eq. 6): 1, 5, 14, 30 for order 0..3; none for the GNN."""
        return n_interactions(-1 if self.order is None else self.order)

    @property
    def n_features(self) -> int:
        """Length of a_ij: weighted coefficients (Eq. 7) and radial functions."""
        return self.n_radial_weights * self.n_scalars + self.n_radial

    @property
    def name(self) -> str:
        """The paper's name of the variant, e.g. ``AMP(3)-DP``; F in the place of D is not in the paper."""
        base = "GNN" if self.order is None else f"AMP({self.order})"
        direct = {"pairs": "D", "fields": "F"}[self.polarization_kind] if self.polarization else ""
        suffix = direct + ("P" if self.long_range else "")
        return f"{base}-{suffix}" if suffix else base
