"""The architectures, one a file, and the registry that builds them by name."""

from ampmm.models.amp import AMP
from ampmm.models.amp_bms import AMPBMS
from ampmm.models.amp_bms_config import AMPBMSConfig
from ampmm.models.amp_bms_weights import ImportedWeights, import_weights
from ampmm.models.amp_config import AMPConfig
from ampmm.models.base import Hyperparameters, Model
from ampmm.models.registry import architectures, build_model

__all__ = [
    "AMP",
    "AMPBMS",
    "AMPBMSConfig",
    "AMPConfig",
    "Hyperparameters",
    "ImportedWeights",
    "Model",
    "architectures",
    "build_model",
    "import_weights",
]
