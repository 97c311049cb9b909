"""Validation of a prior: closed forms for a denoiser that returns what it is given, and the commands on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.precision import choose_precision
from MedDiffFMLib.datasets.prepare import prepare
from MedDiffFMLib.datasets.prepared_cases import open_cases
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.training.pretrain.config import PretrainConfig
from MedDiffFMLib.training.validation import Validation
from MedDiffFMLib.training.windows import WindowConfig
from Testing.unit.phantoms import body

RUN = ["--channels", "8", "16", "32", "--window", "16", "--batch", "2", "--accelerator", "cpu", "--steps", "24",
       "--learning-rate", "0.003", "--validate-every", "100", "--validation-windows", "2", "--averages", "0.05", "0.1",
       "--snapshot-every", "4", "--weighting", "learned"]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cts")
    for name, shape in (("one", (30, 36, 40)), ("two", (30, 40, 40)), ("three", (24, 40, 44))):
        write_volume(body(shape), folder / f"{name}.nrrd")
    datalist = {"training": ["one.nrrd"], "validation": ["two.nrrd", "three.nrrd"]}
    (folder / "datalist.json").write_text(json.dumps(datalist))
    prepare(folder / "datalist.json", folder / "cache")
    return folder / "cache"


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert main(["pretrain", str(cache), "-o", str(folder), *RUN, "--quiet"]) == 0
    return folder


class Identity(torch.nn.Module):
    """Takes its input for clean."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, sigma, condition):
        return x


class Product(Identity):
    """Notes the type in which a product of matrices is computed."""

    def forward(self, x, sigma, condition):
        self.type = (torch.zeros(2, 2) @ torch.zeros(2, 2)).dtype
        return x


@pytest.mark.parametrize(("bfloat16", "precision"), [(True, "auto"), (False, "float32")])
def test_validation_computes_in_the_precision_of_the_training(cache: Path, bfloat16: bool, precision: str) -> None:
    module = Product()
    Validation(open_cases(cache, "validation"), PretrainConfig(windows=WindowConfig(size=16)), 2, bfloat16=bfloat16)(
        module
    )
    assert module.type == choose_precision(precision, torch.device("cpu"))


@pytest.mark.slow
def test_what_leaves_the_noise_errs_by_the_noise(cache: Path) -> None:
    cases = open_cases(cache, "validation")
    config = PretrainConfig(windows=WindowConfig(size=32))
    judge = Validation(cases, config, 16, bfloat16=False)
    figures = judge(Identity())
    for level in (20, 50, 100, 200, 500, 1000, 3000):
        assert figures[f"rmse_hu_at_{level}"] == pytest.approx(level, rel=0.02)
        assert figures[f"even_hu_at_{level}"] == pytest.approx(level, rel=0.05)
    assert figures["scan_hu_at_20"] == pytest.approx(20, rel=0.1) and figures["rmse_hu_in_hole"] > 2000
    assert figures == judge(Identity()), "the same windows and noise each time"


@pytest.mark.slow
def test_the_width_of_the_average_is_chosen_by_validation(cache: Path, run: Path, tmp_path: Path, capsys) -> None:
    """Of a width that was kept and one that is made of the two that were."""
    weights = tmp_path / "chosen.safetensors"
    command = ["average", str(run), "-o", str(weights), "--cache", str(cache), "--windows", "1", "--widths"]
    assert main([*command, "0.05", "0.2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    scores = {float(width): row["score"] for width, row in answer["models"].items()}
    assert set(scores) == {0.05, 0.2} and answer["width"] == min(scores, key=scores.get)  # type: ignore[arg-type]
    model = load_model(str(weights), device="cpu")
    assert model.config["training"]["samples"] == 48 and model.config["training"]["average_width"] == answer["width"]
    assert main(["validate", str(cache), str(weights), "starter-ct", "--windows", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert rows[str(weights)]["score"] == pytest.approx(answer["models"][f"{answer['width']:g}"]["score"], rel=0.01)
    assert rows["starter-ct"]["score"] < rows[str(weights)]["score"], "24 steps are no training"


@pytest.mark.slow
def test_an_average_of_an_earlier_step_can_still_be_made(run: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{step}.safetensors" for step in (12, 24)]
    for path, step in zip(files, ("12", "24"), strict=True):
        assert main(["average", str(run), "-o", str(path), "--widths", "0.1", "--step", step, "--quiet"]) == 0
    assert files[0].read_bytes() != files[1].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--widths", "0.1", "0.2"], "nothing to choose by"),
        (["--widths", "0.1", "--step", "2"], "No average was kept up to step 2"),
    ],
)
def test_an_average_that_cannot_be_made_is_refused(run: Path, tmp_path: Path, options, message, capsys) -> None:
    path = tmp_path / "none.safetensors"
    assert main(["average", str(run), "-o", str(path), *options]) == 2
    assert message in capsys.readouterr().err and not path.exists()


def test_widths_that_no_average_has_are_refused_before_anything_is_trained(cache: Path, tmp_path: Path, capsys) -> None:
    assert main(["pretrain", str(cache), "-o", str(tmp_path / "run"), *RUN, "--averages", "0.4"]) == 2
    assert "relative width" in capsys.readouterr().err
