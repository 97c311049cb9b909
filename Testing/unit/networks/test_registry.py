"""A second network is one file and one row: this file, and the row that the fixture adds."""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from MedDiffFMLib.cli import main
from MedDiffFMLib.conditioning.condition import CONDITION_CHANNELS, Condition, stack
from MedDiffFMLib.core.errors import InputError, ModelError
from MedDiffFMLib.diffusion.controlled_denoiser import with_control
from MedDiffFMLib.inference.sliding_window import SlidingWindowDenoiser
from MedDiffFMLib.models.checkpoint import build_denoiser, load_model, read_header, save_model
from MedDiffFMLib.networks import registry
from MedDiffFMLib.networks.controlnet import ControlConfig
from MedDiffFMLib.networks.registry import NETWORKS, UNNAMED, NetworkRow
from MedDiffFMLib.networks.unet import NetworkConfig
from MedDiffFMLib.segmentation.method import make_method
from MedDiffFMLib.training.pretrain.run import run_config
from Testing.unit.phantoms import body

PAGE = Path(__file__).resolve().parents[3] / "docs/how-to/add-a-network.md"


@dataclass(frozen=True)
class ToyConfig:
    """Two convolutions of some width."""

    name: ClassVar[str] = "toy"

    widths: tuple[int, ...] = (4,)

    @property
    def divisor(self) -> int:
        return 2

    def as_dict(self) -> dict[str, Any]:
        return {key: list(value) for key, value in asdict(self).items()}

    def check(self) -> None:
        if len(self.widths) != 1:
            raise ValueError("it has one width")


class ToyNetwork(nn.Module):
    """Mean of each 2^3 voxels and the condition, convolved at half resolution."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv3d(1 + CONDITION_CHANNELS, config.widths[0], 3, padding=1)
        self.last = nn.Conv3d(config.widths[0], 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: torch.Tensor, noise: torch.Tensor, time: torch.Tensor, condition: Any) -> torch.Tensor:
        half = torch.cat([nn.functional.avg_pool3d(x, 2), condition.channels.to(x.dtype)], dim=1)
        return nn.functional.interpolate(self.last(self.first(half).relu()), scale_factor=2).to(x.dtype)


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(NETWORKS, "toy", NetworkRow("Two convolutions.", __name__, "ToyConfig", "ToyNetwork"))
    yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from MedDiffFMLib.datasets.prepare import prepare
    from MedDiffFMLib.imaging.io import write_volume

    folder = tmp_path_factory.mktemp("cts")
    write_volume(body((24, 36, 40)), folder / "one.nrrd")
    (folder / "datalist.json").write_text(json.dumps({"training": ["one.nrrd"]}))
    prepare(folder / "datalist.json", folder / "cache")
    return folder / "cache"


def train(cache: Path, folder: Path, *more: str) -> int:
    return main(["pretrain", str(cache), "-o", str(folder), "--window", "16", "--batch", "2", "--steps", "2",
                 "--accelerator", "cpu", "--quiet", *more])  # fmt: skip


@pytest.mark.slow
def test_it_is_trained_saved_loaded_and_denoises(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train(cache, folder, "--network", "toy", "--network-option", "widths=[6]") == 0
    path = folder / "model.safetensors"
    described = read_header(path)["config"]
    assert (described["network_name"], described["network"]) == ("toy", {"widths": [6]})
    assert run_config(folder).network == ToyConfig((6,))
    model = load_model(str(path), device="cpu", precision="float32")
    assert isinstance(model.engine.denoiser.network, ToyNetwork) and model.engine.divisor == 2
    x = torch.randn(1, 1, 20, 90, 30)
    found = SlidingWindowDenoiser(model.engine, Condition((2.0, 2.0, 2.0)), (20, 90, 30))(x, 0.5)
    assert found.shape == x.shape and torch.isfinite(found).all()
    assert train(cache, tmp_path / "on", "--initial", str(path)) == 0
    again = read_header(tmp_path / "on" / "model.safetensors")["config"]
    assert again["network"] == {"widths": [6]} and again["network_name"] == "toy"


@pytest.mark.slow
def test_one_network_is_not_taken_for_another(cache: Path, tmp_path: Path, tiny_model_file: Path, capsys) -> None:
    folder = tmp_path / "run"
    assert train(cache, folder, "--network", "toy") == 0
    assert train(cache, folder, "--channels", "8", "32") == InputError.exit_code
    assert "network_name toy instead of prior-unet" in capsys.readouterr().err
    for more in (["--initial", str(tiny_model_file)], ["--blocks", "2"], ["--network-option", "widths=[1, 2]"]):
        assert train(cache, tmp_path / "no", "--network", "toy", *more) == InputError.exit_code


def test_the_example_of_the_page_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of docs/how-to/add-a-network.md, its file and its row as they stand there."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    module = types.ModuleType("MedDiffFMLib.networks.residual")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(blocks[0], str(PAGE), "exec", dont_inherit=True), module.__dict__)
    written = dict(vars(registry))
    exec(blocks[1], written)
    monkeypatch.setitem(NETWORKS, "residual", written["NETWORKS"]["residual"])
    assert written["NETWORKS"][UNNAMED] == NETWORKS[UNNAMED]
    denoiser = build_denoiser({"network": {"width": 8, "depth": 2}, "network_name": "residual", "denoiser": "edm"})
    x = torch.randn(2, 1, 10, 12, 14)
    condition = stack([Condition((2.0, 2.0, 2.0)).encode((10, 12, 14))] * 2)
    found = denoiser(x, torch.tensor([0.5, 100.0]), condition)
    assert found.shape == x.shape and found[1].abs().max() < 1e-2, "zero output: the starting point, all noise removed"
    denoiser.loss(x, torch.ones(2), torch.randn_like(x), condition).mean().backward()  # type: ignore[operator]
    assert denoiser.network.last.weight.grad.abs().max() > 0  # type: ignore[union-attr]


def test_what_needs_a_unet_says_so(tmp_path: Path) -> None:
    config = {"network": {"widths": [4]}, "network_name": "toy", "denoiser": "edm"}
    denoiser = build_denoiser(config)
    with pytest.raises(ModelError, match="takes no ControlNet"):
        with_control(denoiser, ControlConfig(masks=2))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no decoder"):
        make_method("features", {}).build(1, denoiser)
    assert make_method("dynunet", {"window": 32}).build(1, denoiser)


def test_files_without_a_name_have_the_unet_and_stay_so(tmp_path: Path) -> None:
    network = NetworkConfig(channels=(8, 32), attention=(False, False))
    config = {"network": network.as_dict(), "denoiser": "edm"}
    save_model(tmp_path / "old.safetensors", build_denoiser(config).state_dict(), config)
    assert read_header(tmp_path / "old.safetensors")["config"] == config
    unknown = {**config, "network_name": "of tomorrow"}
    with pytest.raises(ModelError, match="no network called 'of tomorrow'.*Update"):
        build_denoiser(unknown)
