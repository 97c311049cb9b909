"""Flow on the network of a prior: it begins with what that knows of the modality, and all of its layers are trained.

The best that is known before the network is y = m + c_skip (x - m), of the noisy image x and the first guess m; it
strays from the truth by a standard deviation e. To a prior that is an image with noise of e, which it removes. So the
flow begins as the prior's own denoiser of y at the level e: the weights of all that the prior has no input for (offset,
guess, field of view), the guidance's additions and the head of log-variances are zero at first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..conditioning.condition import Condition, EncodedCondition
from ..core.errors import ModelError
from ..diffusion.denoiser import SIGMA_DATA, network_time
from ..diffusion.kinds import EDM
from ..imaging.haar import haar_inverse
from ..networks.registry import network_config
from ..networks.unet import NetworkConfig, PriorUNet, stem_channels
from .flow import INPUTS, Flow, FlowConfig
from .guidance import BANDS
from .pairs import SPACING_MM


class TrunkFlow(Flow):
    """Flow whose network is a prior's with more inputs."""

    def _network(self) -> nn.Module:
        assert self.config.trunk is not None
        unet: Any = PriorUNet(self.config.trunk).unet
        first = unet.conv_in.conv
        unet.conv_in.conv = nn.Conv3d(first.in_channels + INPUTS, first.out_channels, 3, padding=1)
        return unet  # type: ignore[no-any-return]

    def begin_with(self, prior: PriorUNet) -> None:
        """Take over a prior's weights, its head for whole images among them; everything else is zero."""
        state = prior.unet.state_dict()
        first, last = "conv_in.conv.weight", "out.2.conv"
        extra = state[first].new_zeros((len(state[first]), INPUTS, *state[first].shape[2:]))
        state[first] = torch.cat([state[first], extra], 1)
        for name in (f"{last}.weight", f"{last}.bias"):
            state[name] = torch.cat([state[name][:BANDS], torch.zeros_like(state[name][BANDS:])])
        self.trunk.load_state_dict(state)

    def _corrected(
        self,
        best: torch.Tensor,
        error: torch.Tensor,
        channels: torch.Tensor,
        sigma: torch.Tensor,
        additions: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        norm = (error.square() + SIGMA_DATA**2).sqrt()
        level = error.flatten()
        condition = _nothing_known(best)
        assert self.config.trunk is not None
        stem = stem_channels(self.config.trunk, best / norm, level / norm.flatten(), condition)
        seen = torch.cat([stem, channels], dim=1).contiguous(memory_format=torch.channels_last_3d)
        heads = self.trunk(seen, network_time(level), class_labels=condition.region, **additions).float()
        change = haar_inverse(heads[:, :BANDS]) * (error * SIGMA_DATA / norm)
        return best * (SIGMA_DATA**2 / norm.square()) + change, heads[:, BANDS:]


def _nothing_known(image: torch.Tensor) -> EncodedCondition:
    """A prior's condition of which the size of the voxels alone is known."""
    batch, _, depth, height, width = image.shape
    one = Condition((SPACING_MM,) * 3).encode((depth, height, width), image.device)
    return EncodedCondition(one.region.expand(batch), one.channels.expand(batch, -1, -1, -1, -1))


def make_flow(config: FlowConfig) -> Flow:
    """A flow of a size, with fresh weights."""
    return Flow(config) if config.trunk is None else TrunkFlow(config)


def trunk_of(path: Path) -> PriorUNet:
    """Network of a prior that a flow can begin with.

    Raises:
        ModelError: the file is no prior, or its network or denoiser is another.
    """
    from ..models.checkpoint import load_denoiser, read_header

    described = read_header(path)["config"]
    if not isinstance(network_config(described), NetworkConfig) or described.get("denoiser") != EDM:
        raise ModelError(
            f"{path.name} cannot be the trunk of a flow: its network or its denoiser is of another kind.",
            "Give a prior of the kind of starter-ct.",
        )
    network: PriorUNet = load_denoiser(path).network  # type: ignore[assignment]
    return network
