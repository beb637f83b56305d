"""Which evaluator of energy and forces a model needs."""

from torch import nn

from ampmm.physics.forces import ForceEvaluator
from ampmm.physics.multipole_forces import MultipoleForceEvaluator


def force_evaluator(model: nn.Module, kernel: nn.Module) -> nn.Module:
    """The evaluator of a model, scripted or not, with a Coulomb kernel.

    Models that say how far their QM–QM long-range pairs reach (`long_range_cutoff`, Å) get them and the fields of
    orders 0 to 2; all others get the potential. Both evaluators take the same arguments.
    """
    if getattr(model, "long_range_cutoff", 0.0) > 0.0:
        return MultipoleForceEvaluator(model, kernel)
    return ForceEvaluator(model, kernel)
