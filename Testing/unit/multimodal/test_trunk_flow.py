"""Flow on the network of a prior: the prior itself at first, trained whole, and kept in one file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from MedDiffFMLib.cli import main
from MedDiffFMLib.conditioning.condition import Condition
from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.diffusion.denoiser import EDMDenoiser
from MedDiffFMLib.models.checkpoint import save_model
from MedDiffFMLib.multimodal.flow import FlowConfig
from MedDiffFMLib.multimodal.guidance import Source
from MedDiffFMLib.multimodal.trunk_flow import TrunkFlow, make_flow, trunk_of
from MedDiffFMLib.networks.unet import NetworkConfig, PriorUNet

SMALL_PRIOR = NetworkConfig(channels=(8, 8, 16), blocks=(1, 2, 1), groups=4, tissue=True)
SHAPE = (16, 24, 16)


def small_prior() -> EDMDenoiser:
    """A prior with random numbers where zeros are at first."""
    torch.manual_seed(0)
    prior = EDMDenoiser(PriorUNet(SMALL_PRIOR))
    for parameter in prior.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return prior.eval().requires_grad_(False)


def begun(prior: EDMDenoiser) -> TrunkFlow:
    flow = make_flow(FlowConfig(("mr-t1",)).on(SMALL_PRIOR))
    assert isinstance(flow, TrunkFlow)
    flow.begin_with(prior.network)  # type: ignore[arg-type]
    return flow


def images(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand((1, 1, *SHAPE), generator=generator) - 0.5 for _ in range(count)]


@pytest.mark.parametrize("sigma", [torch.inf, 0.3, 0.05])
def test_at_first_it_is_the_prior_that_removes_the_guess_s_error(sigma: float) -> None:
    """y = m + d^2 / (sigma^2 + d^2) (x - m), which strays by d sigma / sqrt(sigma^2 + d^2): the best of two numbers
    with normal errors. Neither the MR nor its field of view change anything yet."""
    prior, (x, guess, mr, other) = small_prior(), images(4)
    flow, d = begun(prior).eval(), FlowConfig(("mr-t1",)).deviation
    share = 0.0 if sigma == torch.inf else d**2 / (sigma**2 + d**2)
    error = torch.tensor([d if sigma == torch.inf else d * sigma / (sigma**2 + d**2) ** 0.5])
    best = guess + share * (x - guess)
    with torch.no_grad():
        expected = prior(best, error, Condition((2.0, 2.0, 2.0)).encode(SHAPE))
        made = [flow(x, torch.tensor([sigma]), {"mr-t1": Source(image, torch.zeros(1), seen, guess=guess)})
                for image, seen in ((mr, None), (other, (mr > 0).float()))]  # fmt: skip
    assert (expected - best).abs().max() > 0.01, "the prior does something"
    for estimate in made:
        torch.testing.assert_close(estimate.image, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            estimate.log_variance, torch.full_like(estimate.log_variance, 2 * error.log().item())
        )


def test_all_of_its_layers_are_trained() -> None:
    flow, (guess, mr, truth) = begun(small_prior()).train(), images(3)
    optimizer = torch.optim.SGD(flow.parameters(), 0.01)
    before = {name: parameter.detach().clone() for name, parameter in flow.named_parameters()}
    for _ in range(2):
        estimate = flow(mr, torch.tensor([torch.inf]), {"mr-t1": Source(mr, torch.zeros(1), guess=guess)})
        ((estimate.image - truth).square().mean() + estimate.log_variance.square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    still = [name for name, parameter in flow.named_parameters() if torch.equal(parameter, before[name])]
    trunk = {name for name in still if name.startswith("trunk.")}
    assert trunk <= {"trunk.middle_block.attention.attn.to_k.bias"}, "which cancels in a softmax"
    assert not [name for name in still if ".additions." in name]


def test_sizes_are_those_of_the_trunk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = FlowConfig(("mr-t1",)).on(SMALL_PRIOR)
    config.check()
    assert config.divisor == SMALL_PRIOR.divisor and json.loads(json.dumps(config.as_dict()))["trunk"]["groups"] == 4
    with pytest.raises(ValueError, match="not those of its trunk"):
        replace(config, channels=(16, 16, 16)).check()
    path = tmp_path / "other.safetensors"
    save_model(path, small_prior().state_dict(), {"network": SMALL_PRIOR.as_dict(), "denoiser": "cosine-epsilon"})
    with pytest.raises(ModelError, match="other.safetensors cannot be the trunk of a flow"):
        trunk_of(path)
    arguments = ["pretrain-translate", "none.json", "-o", str(tmp_path / "run"), "--trunk", "no-such-model"]
    assert main(arguments) == 3 and "no-such-model" in capsys.readouterr().err
