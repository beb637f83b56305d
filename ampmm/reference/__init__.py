"""Reference calculations with electrostatic embedding: the labels a model learns."""

from ampmm.reference.base import Labeller
from ampmm.reference.gfnff import GFNFFDriver
from ampmm.reference.registry import LABELLERS, get_labeller
from ampmm.reference.xtb import XTBLabeller, XTBSettings

__all__ = ["LABELLERS", "GFNFFDriver", "Labeller", "XTBLabeller", "XTBSettings", "get_labeller"]
