"""A model read from a `.pt` file: its card, its scripted module, and single evaluations on NumPy arrays."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch

from ampmm.elements import formula, symbols
from ampmm.errors import InputError
from ampmm.export.evaluator import Evaluator
from ampmm.export.metadata import Card, unlike
from ampmm.geometry.cell import has_nearer_image, in_one_piece, largest_cutoff
from ampmm.geometry.neighbors import edges_within, pairs_between, pairs_closer_than, unordered_pairs_within
from ampmm.physics.charges import dipole_moment
from ampmm.physics.coulomb import DEFAULT_CUTOFF, coulomb_kernel
from ampmm.physics.evaluators import force_evaluator
from ampmm.types import Evaluation, Frame, Pairs

_SHORTEST: Final = 3.0  # Å, of a Coulomb cutoff
_NEAREST: Final = 0.3  # Å; no two sites of a molecule, nor of two, come this near
_LARGEST_CHARGE: Final = 5.0  # e; no ion of a force field has more


@dataclass(frozen=True)
class LoadedModel:
    """A scripted model and its card.

    A Δ-model (its card names a base) is the difference to a cheaper method: it evaluates frames once `with_base` has given it
    that method, whose energies and forces are added.

    The model is `(Frame, PointCharges) -> Energies`, or for one of atomic multipoles (its card has a long-range cutoff)
    `(Frame, PointCharges, Pairs) -> MultipoleEnergies`.
    """

    module: torch.jit.ScriptModule
    card: Card
    path: Path
    base: Evaluator | None = None  # of a Δ-model
    _converted: dict[torch.dtype, torch.jit.ScriptModule] = field(default_factory=dict, init=False, repr=False, compare=False)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def evaluate(
        self,
        numbers: Sequence[int] | np.ndarray,
        positions_qm: np.ndarray,
        positions_mm: np.ndarray,
        charges_mm: np.ndarray,
        box: np.ndarray | None = None,
        qm_charge: int | None = None,
        coulomb_cutoff: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Evaluation:
        """Energy, forces, charges and dipole of one frame.

        Args:
            numbers: (N,) atomic numbers of the QM region.
            positions_qm, positions_mm: (N, 3) and (M, 3) Å; plain arrays, in any periodic image.
            charges_mm: (M,) e.
            box: lengths (3,) or reduced box vectors (3, 3) in Å; None for a droplet or cluster.
            qm_charge: net charge, e; None takes the card's. A model for any charge needs it.
            coulomb_cutoff: of the QM–MM reaction field in a box, Å; default the model's own, else 12 Å or half the box.
            dtype: `torch.float32` or `torch.float64` arithmetic.

        Raises:
            InputError: for wrong shapes, units, elements, charges or boxes, positions that are not finite, or two sites
                at one place; for a Δ-model without its base.
        """
        self.check_base()
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"dtype: expected torch.float32 or torch.float64, got {dtype!r}")
        numbers = self.check_numbers(numbers)
        charge = self.check_charge(qm_charge)
        qm = _array("positions_qm", positions_qm, (len(numbers), 3))
        mm = _array("positions_mm", positions_mm, (None, 3))
        charges = _array("charges_mm", charges_mm, (len(mm),))
        largest = float(np.abs(charges).max(initial=0.0))
        if largest > _LARGEST_CHARGE:
            raise InputError(f"charges_mm: expected e, got one of {largest:.2f}; are these Amber's, in units of 1/18.2223 e?")
        vectors = None if box is None else torch.as_tensor(_box_vectors(box))
        coulomb_cutoff = self._coulomb_cutoff(vectors, coulomb_cutoff)

        device = next(self.module.buffers()).device
        x, y = torch.as_tensor(qm, device=device), torch.as_tensor(mm, device=device)
        vectors = None if vectors is None else vectors.to(device)
        polarization_cutoff = self.card.cutoffs["polarization"]
        reach = float("inf") if coulomb_cutoff is None else max(coulomb_cutoff, polarization_cutoff)
        edges = edges_within(x, self.card.cutoffs["qm"], vectors)
        pairs = pairs_between(x, y, reach, vectors)
        self._check_lengths(edges, pairs)
        near = pairs_closer_than(pairs, polarization_cutoff)
        far = self._long_range(x, vectors)
        n_atoms = len(numbers)
        frame = Frame(
            torch.as_tensor(numbers, device=device),
            torch.zeros(n_atoms, dtype=torch.long, device=device),
            # The base of a Δ-model has the whole net charge.
            torch.tensor([0.0 if self.card.base else float(charge)], device=device, dtype=dtype),
            edges._replace(vectors=edges.vectors.to(dtype)),
        )
        kernel = coulomb_kernel("bare" if coulomb_cutoff is None else "reaction-field", coulomb_cutoff)
        result = force_evaluator(self._module_in(dtype), kernel)(
            frame,
            torch.as_tensor(charges, device=device).to(dtype),
            near._replace(vectors=near.vectors.to(dtype)),
            pairs._replace(vectors=pairs.vectors.to(dtype)),
            long_range=None if far is None else far._replace(vectors=far.vectors.to(dtype)),
        )
        charges_qm = result.energies.charges.detach().double().cpu()
        dipole = dipole_moment(charges_qm, in_one_piece(x, vectors).cpu())
        if far is not None:
            dipole = dipole + result.energies.dipoles.detach().double().cpu().sum(dim=0)
        evaluation = Evaluation(
            result.energies.total.item(),
            result.forces_qm.double().cpu().numpy(),
            result.forces_mm.double().cpu().numpy(),
            charges_qm.numpy(),
            dipole.numpy(),
        )
        if not all(np.isfinite(each).all() for each in evaluation):
            raise InputError(
                "positions: the energy or the forces are not finite here; are two atoms, or an atom and an MM charge, "
                "at one place?"
            )
        if self.base is None:
            return evaluation
        return _summed(evaluation, self.base.evaluate(numbers, qm, mm, charges, box=box, qm_charge=charge))

    def with_base(self, base: Evaluator) -> Self:
        """This Δ-model with the method it corrects, e.g. ``ampmm.reference.get_labeller("gfn2-xtb")``.

        Raises:
            InputError: it is no Δ-model, or the method's `level_of_theory` or `settings` are not those of its card.
        """
        if not self.card.base:
            raise InputError(f"base: model {self.card.name!r} is no Δ-model, it has whole energies; use it without a base")
        expected, level = self.card.base["level_of_theory"], getattr(base, "level_of_theory", None)
        if level != expected:
            raise InputError(f"base: model {self.card.name!r} corrects {expected}, got {level or type(base).__name__}")
        own, other = self.card.base.get("level_settings", {}), getattr(base, "settings", {})
        differing = [f"{name} {other.get(name)!r}, not {own.get(name)!r}" for name in unlike(own, other)]
        if differing:
            raise InputError(
                f"base: model {self.card.name!r} was trained with other settings of {expected}: {'; '.join(differing)}"
            )
        return replace(self, base=base)

    def check_base(self) -> None:
        """Refuse a Δ-model that lacks its base."""
        if self.card.base and self.base is None:
            level = self.card.base["level_of_theory"]
            raise InputError(
                f"model: {self.card.name!r} is a correction to {level} and no energy by itself; add that method with "
                f"load_model(...).with_base(...), for which `ampmm.reference.get_labeller` makes it"
            )

    def check_numbers(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """The atomic numbers (N,) as int64, if the model knows them all."""
        values = np.asarray(numbers)
        if values.ndim != 1 or values.size == 0 or not np.issubdtype(values.dtype, np.integer):
            raise InputError(f"numbers: expected (N,) atomic numbers, got shape {values.shape} of {values.dtype}")
        unknown = sorted(set(values.tolist()) - set(self.card.elements))
        if unknown:
            raise InputError(
                f"numbers: model {self.card.name!r} knows {', '.join(symbols(self.card.elements))}, got "
                f"{', '.join(symbols(unknown))}; choose another model or train one on these elements"
            )
        if self.card.composition and sorted(values.tolist()) != sorted(self.card.composition):
            raise InputError(
                f"numbers: model {self.card.name!r} was trained on {formula(self.card.composition)} alone, got "
                f"{formula(values.tolist())}; its energies mean nothing for another molecule"
            )
        return values.astype(np.int64)

    def check_charge(self, qm_charge: int | None) -> int:
        """The net charge of the QM region, which has to be the one of the training data, if all of that had the same."""
        if self.card.qm_charge is None:
            if qm_charge is None:
                raise InputError(f"qm_charge: model {self.card.name!r} takes any net charge; give that of the QM region, e")
            try:
                whole = int(qm_charge)
            except (TypeError, ValueError, OverflowError):
                raise InputError(f"qm_charge: expected a whole number of e, got {qm_charge!r}") from None
            if whole != qm_charge:
                raise InputError(f"qm_charge: expected a whole number of e, got {qm_charge!r}")
            return whole
        if qm_charge is not None and qm_charge != self.card.qm_charge:
            raise InputError(
                f"qm_charge: model {self.card.name!r} was trained for a net charge of {self.card.qm_charge}, got {qm_charge!r}"
            )
        return self.card.qm_charge

    def _check_lengths(self, edges: Pairs, pairs: Pairs) -> None:
        """Refuse what no molecule has, and lengths in nm do."""
        seen = (self.card.bounds.get("min_distance") or {}).values()
        for name, what, vectors, least in (
            ("positions_qm", "two atoms", edges.vectors, 0.5 * min(seen) if seen else _NEAREST),
            ("positions_mm", "a charge and an atom of the QM region", pairs.vectors, _NEAREST),
        ):
            nearest = math.sqrt((vectors * vectors).sum(dim=1).min()) if len(vectors) else math.inf
            if 0.0 < nearest < least:
                raise InputError(
                    f"{name}: expected Å, got {what} {nearest:.2g} Å apart, nearer than {least:.2g} Å: they overlap, "
                    "or are these lengths in nm?"
                )

    def default_coulomb_cutoff(self, largest: float) -> float:
        """The cutoff of the QM–MM reaction field, Å: the model's own, else 12 Å or `largest` (half the box)."""
        return float(self.card.cutoffs.get("coulomb", min(DEFAULT_CUTOFF, largest)))

    def _long_range(self, positions: torch.Tensor, box: torch.Tensor | None) -> Pairs | None:
        cutoff = self.card.cutoffs.get("long_range")
        if cutoff is None:
            return None
        pairs = unordered_pairs_within(positions, cutoff, box)
        if box is None or cutoff <= largest_cutoff(box):
            return pairs
        ambiguous = pairs_closer_than(pairs, largest_cutoff(box)).vectors.shape != pairs.vectors.shape
        if ambiguous or has_nearer_image(unordered_pairs_within(positions, float("inf"), box).vectors, box, cutoff):
            raise InputError(
                f"box: two QM atoms are farther apart than half the box ({largest_cutoff(box):.2f} Å) and closer than the "
                f"model's long-range cutoff ({cutoff} Å), so that their nearest images are ambiguous; use a larger box"
            )
        return pairs

    def _module_in(self, dtype: torch.dtype) -> torch.jit.ScriptModule:
        """The module in a precision; the loaded one stays as it is."""
        if dtype == torch.float32:
            return self.module
        if dtype not in self._converted:
            with torch.no_grad():
                self._converted[dtype] = copy.deepcopy(self.module).to(dtype)
        return self._converted[dtype]

    def _coulomb_cutoff(self, box: torch.Tensor | None, asked: float | None) -> float | None:
        if box is None:
            if asked is not None:
                raise InputError("coulomb_cutoff: without a box the electrostatics has no cutoff; leave it out or give a box")
            return None
        largest = largest_cutoff(box)
        cutoff = self.default_coulomb_cutoff(largest) if asked is None else checked_cutoff(asked)
        for name, value in (
            ("coulomb_cutoff", cutoff),
            ("the model's polarization cutoff", self.card.cutoffs["polarization"]),
            ("the model's QM-QM cutoff", self.card.cutoffs["qm"]),
        ):
            if value > largest:
                raise InputError(
                    f"box: {name} of {value} Å is over half the box ({largest:.2f} Å); use a larger box or a smaller cutoff"
                )
        return cutoff


def checked_cutoff(asked: float) -> float:
    """A Coulomb cutoff that a user gave, Å.

    Raises:
        InputError: it is no number, a Quantity, or so short that it must be in nm.
    """
    if isinstance(asked, bool) or not isinstance(asked, (int, float, np.number)):
        raise InputError(f"coulomb_cutoff: expected a plain number in Å, got {asked!r}")
    if not _SHORTEST <= asked < float("inf"):
        raise InputError(f"coulomb_cutoff: expected a length in Å, of at least {_SHORTEST} Å, got {asked}; is this in nm?")
    return float(asked)


def _summed(first: Evaluation, second: Evaluation) -> Evaluation:
    return Evaluation(*(mine + theirs for mine, theirs in zip(first, second, strict=True)))


def _array(name: str, values: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray:
    """`values` as float64 of the given shape (None: any length); a quantity with units is refused."""
    expected = str(shape).replace("None", "M")
    if hasattr(values, "unit"):
        raise InputError(f"{name}: expected a plain array in Å or e, got a Quantity in {values.unit}; convert it first")
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):  # torch's, of a tensor with a gradient or on a GPU
        raise InputError(f"{name}: expected an array of numbers of shape {expected}, got {type(values).__name__}") from None
    if array.size == 0 and shape[0] in (None, 0):
        array = array.reshape(0, *shape[1:])  # no MM charges, as an empty list
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        raise InputError(f"{name}: expected shape {expected}, got {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: {np.count_nonzero(~np.isfinite(array))} values are NaN or infinite")
    return np.ascontiguousarray(array)


def _box_vectors(box: np.ndarray) -> np.ndarray:
    """Lengths (3,) or reduced vectors (3, 3), Å, as vectors."""
    lengths_only = not hasattr(box, "unit") and np.ndim(np.array(box, dtype=object)) == 1
    vectors = np.diag(_array("box", box, (3,))) if lengths_only else _array("box", box, (3, 3))
    a, b, c = vectors
    reduced = (
        np.allclose(vectors, np.tril(vectors))
        and min(a[0], b[1], c[2]) > 0.0
        and a[0] >= 2.0 * max(abs(b[0]), abs(c[0])) - 1e-6
        and b[1] >= 2.0 * abs(c[1]) - 1e-6
    )
    if not reduced:
        raise InputError(
            "box: expected positive lengths, or reduced box vectors as OpenMM defines them (lower triangular, "
            f"|b_x|, |c_x| ≤ a_x/2, |c_y| ≤ b_y/2), got {vectors.tolist()}"
        )
    return vectors
