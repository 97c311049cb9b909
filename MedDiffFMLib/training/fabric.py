"""Lightning Fabric: its own small package, or the one that the whole of Lightning brings."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..core.errors import DependencyError

if TYPE_CHECKING or find_spec("lightning_fabric") is not None:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers import TensorBoardLogger
    from lightning_fabric.loggers.logger import Logger
    from lightning_fabric.strategies import DDPStrategy
    from lightning_fabric.utilities.rank_zero import rank_zero_only
elif find_spec("lightning") is not None:
    from lightning.fabric import Fabric
    from lightning.fabric.loggers import TensorBoardLogger
    from lightning.fabric.loggers.logger import Logger
    from lightning.fabric.strategies import DDPStrategy
    from lightning.fabric.utilities.rank_zero import rank_zero_only
else:
    raise DependencyError("Training needs Lightning Fabric.", "Install it: pip install lightning-fabric")

__all__ = ["DDPStrategy", "Fabric", "Logger", "TensorBoardLogger", "rank_zero_only"]
