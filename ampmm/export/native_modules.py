"""Scripted models with native operators.

A `.pt` file holds the model written with PyTorch's operators, so that it loads everywhere; a scripted graph with an
operator that is not there would not load. Where the library of native operators is, a loaded model is made anew from its
card and its weights, with them.
"""

import copy
import io

import torch
from torch import nn

from ampmm.errors import InputError, ModelFileError
from ampmm.export.metadata import Card
from ampmm.models import build_model
from ampmm.nn import native
from ampmm.physics.coulomb import BareCoulomb
from ampmm.physics.evaluators import force_evaluator
from ampmm.physics.forces import EnergiesAndForces
from ampmm.types import Frame, Pairs

# Of energies and forces, relative to the largest of each: single precision differs by about 1e-6.
_TOLERANCE = 1.0e-3
# QM–MM pairs of frames on a GPU: some for every number of rows of a block in plugin/src/gpu/networks.cu.
_PAIRS_ON_GPU = (2000, 9000)


def uses_native_operators(module: nn.Module) -> bool:
    """Whether a module, scripted or not, calls a native operator."""
    if not isinstance(module, torch.jit.ScriptModule):
        return native.is_native(module)
    return "ampmm::" in str(module.inlined_graph)


def load_scripted(archive: bytes) -> torch.jit.ScriptModule:
    """A scripted module from the bytes of its archive, which may hold native operators.

    Raises:
        ModelFileError: it holds native operators and they are not available here. Those for a GPU alone are known to every
            library; they are refused where they are called without kernels.
    """
    reason = native.load()
    try:
        # What was on a GPU there may have none here.
        return torch.jit.load(io.BytesIO(archive), map_location=None if torch.cuda.is_available() else "cpu")
    except RuntimeError as error:
        if "ampmm::" in str(error):
            here = reason or f"others, of another version of ampmm ({str(error).strip().splitlines()[0]})"
            raise ModelFileError(
                f"the model was written with native operators; here they are {here}, or write it with AMPMM_NATIVE=0"
            ) from None
        raise


def with_native_operators(module: torch.jit.ScriptModule, card: Card) -> torch.jit.ScriptModule:
    """The same model with native operators; `module` itself if they are not there or this code is not what made it.

    An archive keeps the code of the version that wrote it. If the architecture has changed since, the energies and forces
    of a small frame differ and the archive is used as it is. On a GPU, where this version's code needs fewer launches than
    older ones, the model is made anew without native operators too.
    """
    on_gpu = next(module.buffers()).device.type == "cuda"
    if not native.available() and not on_gpu:
        return module
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # of the archive; buffers that it does not hold are made here
    try:
        model = build_model(card.architecture, {**card.hyperparameters, "elements": card.elements})
        own = module.state_dict()
        with torch.no_grad():
            model.load_state_dict({name: own[name].clone() for name in model.state_dict()}, assign=True)
            for name, buffer in model.named_buffers():
                if name.endswith("frequencies") and name in own:  # AMP-BMS's weights come with their own
                    buffer.copy_(own[name])
        native.use_native(model.to(next(module.buffers()).device).eval().requires_grad_(False))
    except (InputError, RuntimeError, KeyError, TypeError, ValueError):
        return module
    finally:
        torch.set_default_dtype(default)
    if not native.is_native(model) and not on_gpu:
        return module
    scripted = torch.jit.script(model)
    return scripted if _agree(module, scripted, card) else module


def _agree(module: torch.jit.ScriptModule, other: torch.jit.ScriptModule, card: Card) -> bool:
    """Whether two models give the same, also on a GPU if there are kernels for one: TorchForce moves its model there later."""
    try:
        if not _same(module, other, card):
            return False
        if native.gpu_device() != "cuda" or not torch.cuda.is_available():
            return True
        if next(module.buffers()).device.type != "cuda":
            module, other = (copy.deepcopy(each).to("cuda") for each in (module, other))
        # How many pairs there are decides which kernels take them.
        return all(_same(module, other, card, n_pairs) for n_pairs in _PAIRS_ON_GPU)
    except RuntimeError:  # as of a GPU without memory left; the archive will say what it is
        return False


def _same(module: torch.jit.ScriptModule, other: torch.jit.ScriptModule, card: Card, n_pairs: int = 0) -> bool:
    """On a chain of all elements beside two charges, or so many that there are `n_pairs` QM–MM pairs."""
    one, two = _evaluate(module, card, n_pairs), _evaluate(other, card, n_pairs)
    pairs = [(one.energies.nodes, two.energies.nodes), (one.forces_qm, two.forces_qm), (one.forces_mm, two.forces_mm)]
    return all(bool((a - b).abs().max() <= _TOLERANCE * a.abs().max().clamp(min=1.0)) for a, b in pairs)


@torch.enable_grad()
def _evaluate(module: torch.jit.ScriptModule, card: Card, n_pairs: int = 0) -> EnergiesAndForces:
    like = next(buffer for buffer in module.parameters())
    n = len(card.elements) + 1
    numbers = torch.tensor([*card.elements, card.elements[0]], device=like.device)
    index = torch.arange(n, device=like.device)
    steps = torch.tensor([1.9, 0.7, 1.0]).to(like)  # 2.3 Å: nearer, the heaviest elements are nowhere in any training
    here = index.to(like).unsqueeze(-1) * steps
    near = (index[:, None] - index[None, :]).abs() == 1
    centers, neighbors = near.nonzero(as_tuple=True)
    charges = torch.tensor([0.4, -0.8]).to(like)
    mm = torch.tensor([[0.5, 3.0, -1.0], [-1.5, -2.0, 1.0]]).to(like)
    if n_pairs > 0:
        charges, mm = _around(here, -(-n_pairs // n))
    i, m = index.repeat_interleave(len(mm)), torch.arange(len(mm), device=like.device).repeat(n)
    outer = Pairs(i, m, mm[m] - here[i])
    first, second = torch.triu_indices(n, n, 1, device=like.device).unbind(0)
    far = Pairs(first, second, here[second] - here[first])
    frame = Frame(
        numbers, torch.zeros_like(numbers), torch.zeros(1).to(like), Pairs(centers, neighbors, here[neighbors] - here[centers])
    )
    return force_evaluator(module, BareCoulomb())(frame, charges, outer, outer, long_range=far)


def _around(chain: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Charges (n,), small so that all do what a few would do, and positions (n, 3) on a spiral 3 to 6 Å from a chain's axis."""
    k = torch.arange(n).to(chain)
    along = chain[-1] - chain[0]
    across = torch.linalg.cross(along, torch.tensor([0.0, 0.0, 1.0]).to(chain))
    turned = torch.linalg.cross(along, across)
    angle, radius = 2.4 * k, 3.0 + 3.0 * torch.frac(0.618 * k)
    circle = torch.cos(angle)[:, None] * across / across.norm() + torch.sin(angle)[:, None] * turned / turned.norm()
    charges = torch.cos(k) * (8.0 / n**0.5)
    return charges, chain[0] + (k / n)[:, None] * along + radius[:, None] * circle
