"""Settings of a pre-training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ...networks.backbone import BackboneConfig
from ...networks.registry import name_of
from ...networks.unet import NetworkConfig
from ..loop import LoopConfig
from ..noise import NoiseConfig
from ..windows import WindowConfig


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides what is trained; written into the run folder and into the weights.

    Attributes:
        batch: global batch size, divided among the processes.
        validation_windows: of each kind, see :class:`training.validation.Validation`.
        denoiser: "edm" or "cosine-epsilon".
        weighting: of noise levels in the loss: "set" by what a trained prior leaves, or "learned" on top of that.
    """

    batch: int = 4
    seed: int = 0
    validation_windows: int = 128
    denoiser: str = "edm"
    weighting: str = "set"
    network: BackboneConfig = field(default_factory=NetworkConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def model_config(self) -> dict[str, Any]:
        """Description that the weight file has of itself."""
        described = {"network": self.network.as_dict(), "denoiser": self.denoiser, "window": self.windows.size}
        return {**described, **name_of(self.network)}

    def record(self) -> dict[str, Any]:
        """Description that the run folder has of the run."""
        return {**asdict(self), "network_name": self.network.name}
