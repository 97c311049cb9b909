"""From CTs to weights that work: training, killing, resuming, calibrating."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.networks.blocks.spatialattention import SpatialAttentionBlock
from safetensors.torch import load_file

from MedDiffFMLib.cli import main
from MedDiffFMLib.conditioning.condition import CONDITION_CHANNELS, EncodedCondition
from MedDiffFMLib.conditioning.region import body_mask
from MedDiffFMLib.core.errors import InputError, ModelError
from MedDiffFMLib.datasets.prepare import prepare
from MedDiffFMLib.datasets.prepared_cases import open_cases
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import build_denoiser, load_model, read_header
from MedDiffFMLib.networks.unet import NetworkConfig
from MedDiffFMLib.tasks.anomaly.spec import Anomaly
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.training.loop import LoopConfig, rate_at
from MedDiffFMLib.training.noise import NoiseConfig
from MedDiffFMLib.training.pretrain.batches import Batches
from MedDiffFMLib.training.pretrain.config import PretrainConfig
from MedDiffFMLib.training.pretrain.presets import preset
from MedDiffFMLib.training.pretrain.run import pretrain
from MedDiffFMLib.training.windows import WindowConfig
from Testing.unit.phantoms import body

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[3]
STEPS = 40
TINY = ["--channels", "8", "32", "--window", "16", "--batch", "2", "--accelerator", "cpu", "--steps", str(STEPS),
        "--learning-rate", "0.003", "--checkpoint-every", "7", "--validate-every", "20",
        "--validation-windows", "4"]  # fmt: skip


@pytest.fixture(scope="module")
def cache(small_ct: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases to train on, one to validate on."""
    folder = tmp_path_factory.mktemp("cts")
    write_volume(small_ct, folder / "chest.nrrd")
    write_volume(body(spacing=2.0), folder / "ball.nrrd")
    write_volume(body((30, 40, 40)), folder / "other.nrrd")
    datalist = {"training": ["chest.nrrd", "ball.nrrd"], "validation": ["other.nrrd"]}
    (folder / "datalist.json").write_text(json.dumps(datalist))
    prepare(folder / "datalist.json", folder / "cache")
    return folder / "cache"


@pytest.fixture(scope="module")
def whole_run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    process = child(cache, folder)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output.decode()
    return folder


def rows(path: Path) -> list[dict[str, float]]:
    """A CSV of numbers."""
    with open(path, newline="") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def child(cache: Path, folder: Path) -> subprocess.Popen:
    """The same run in its own process."""
    command = [sys.executable, "-m", "MedDiffFMLib", "pretrain", str(cache), "--output", str(folder), *TINY]
    # One thread: sums of several threads come in any order, and the last bits differ.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_training_lowers_the_loss(cache: Path, tmp_path: Path) -> None:
    config = PretrainConfig(
        batch=2,
        validation_windows=2,
        network=NetworkConfig(channels=(8, 32), attention=(False, False)),
        windows=WindowConfig(size=16, levels=("whole",), fill_share=0.0, denoise_share=0.0),
        noise=NoiseConfig(log_mean=0.0, log_std=0.01),  # 1000 HU: the shape of the body is what counts
        loop=LoopConfig(steps=60, learning_rate=0.01, warmup=5),
    )
    pretrain(cache, tmp_path, config, accelerator="cpu")
    losses = [row["loss"] for row in rows(tmp_path / "losses.csv")]
    assert len(losses) == 60 and np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_a_sample_does_not_depend_on_how_the_batch_is_divided(cache: Path) -> None:
    """Windows, noise levels, noise and weights of a global batch are the same for one process and for two."""
    config = PretrainConfig(
        batch=4,
        seed=3,
        windows=WindowConfig(size=16),
        loop=LoopConfig(steps=6),
        network=NetworkConfig(channels=(8, 32), attention=(False, False)),
    )
    cases = open_cases(cache, "training")

    def inputs(rank: int, processes: int, first: int) -> list[tuple[torch.Tensor, ...]]:
        fabric = SimpleNamespace(world_size=processes, global_rank=rank, device="cpu")
        batches = Batches(cases, config, fabric, workers=0)
        batches.start(first, None)
        return [batches.loss(lambda *parts: parts, step) for step in range(first, 6)]

    whole = inputs(0, 1, first=0)
    halves = [inputs(rank, 2, first=4) for rank in range(2)]
    for step in (4, 5):
        for part, one, two in zip(whole[step], halves[0][step - 4], halves[1][step - 4], strict=True):
            assert torch.equal(part, torch.cat([one, two]))
    noises = [step[2] for step in whole]
    assert all(not torch.equal(a, b) for n, a in enumerate(noises) for b in noises[:n]), "new noise in every step"
    assert all(not torch.equal(a, b) for noise in noises for a, b in combinations(noise, 2)), "and in every sample"


@pytest.mark.slow
def test_the_paper_recipe_has_attention_at_16_only() -> None:
    """128^3 windows, noise prediction, whole images; seen on the network that is built, without computing it."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    config = preset("paper-ct")
    assert (config.windows.size, config.denoiser, config.batch) == (128, "cosine-epsilon", 4)
    assert config.network.channels[0] == 32 and config.network.blocks == 1
    assert (config.windows.fill_share, config.windows.denoise_share) == (0, 0)
    assert (config.loop.learning_rate, config.loop.weight_decay, config.loop.steps) == (1e-4, 0, 181_000)
    assert rate_at(150_000, config.loop) == 1e-4, "no decay"
    edges: list[tuple[int, ...]] = []
    with FakeTensorMode():
        denoiser = build_denoiser(config.model_config())
        blocks = [m for m in denoiser.modules() if isinstance(m, SpatialAttentionBlock)]
        for block in blocks:
            block.register_forward_hook(lambda module, inputs, output: edges.append(tuple(output.shape[2:])))
        x, one = torch.empty(1, 1, 128, 128, 128), torch.ones(1)
        condition = EncodedCondition(one.long(), torch.empty(1, CONDITION_CHANNELS, 64, 64, 64))
        assert denoiser(x, one, condition).shape == x.shape
    assert len(blocks) >= 3 and edges == [(16, 16, 16)] * len(blocks)
    assert preset("starter-ct-0.1") == PretrainConfig()


@pytest.mark.slow
def test_the_paper_recipe_trains_and_options_replace_its_values(cache: Path, tmp_path: Path) -> None:
    """Scaled down: a quarter of the window's edge and of the channels, few windows to validate on; else as it is."""
    command = ["pretrain", str(cache), "-o", str(tmp_path), "--config", "paper-ct", "--window", "32", "--channels",
               "8", "16", "32", "--batch", "1", "--steps", "2", "--validation-windows", "2", "--accelerator", "cpu",
               "--quiet"]  # fmt: skip
    assert main(command) == 0
    losses = [row["loss"] for row in rows(tmp_path / "losses.csv")]
    assert len(losses) == 2 and all(0.3 < loss < 2 for loss in losses), "L1 of unit noise is 0.8 untrained"
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["network"] == {
        "channels": [8, 16, 32],
        "blocks": 1,
        "attention": [False, False, True],
        "groups": 8,
        "tissue": False,
    }
    assert (config["batch"], config["windows"]["size"], config["loop"]["steps"]) == (1, 32, 2)
    assert config["loop"]["learning_rate"] == 1e-4 and config["noise"]["levels"] == "cosine-steps"
    assert load_model(str(tmp_path / "model.safetensors"), device="cpu").config["denoiser"] == "cosine-epsilon"


@pytest.mark.slow
def test_validation_is_logged_by_noise_level(whole_run: Path) -> None:
    validation = rows(whole_run / "validation.csv")
    assert [row["step"] for row in validation] == [20, 40]
    for row in validation:
        figures = [row[f"rmse_hu_at_{level}"] for level in (20, 50, 100, 200)]
        assert figures == sorted(figures) and figures[0] > 10, "the hardly trained network leaves the noise in place"


@pytest.mark.slow
def test_weights_load_and_say_where_they_come_from(whole_run: Path) -> None:
    model = load_model(str(whole_run / "model.safetensors"), device="cpu")
    assert model.config["network"]["channels"] == [8, 32] and model.config["denoiser"] == "edm"
    assert model.config["window"] == 16
    assert model.config["training"]["steps"] == STEPS and model.config["training"]["samples"] == 2 * STEPS
    ema = torch.load(whole_run / "last.pt", weights_only=True)["ema"]
    for name, tensor in load_file(whole_run / "model.safetensors").items():
        assert torch.equal(tensor, ema[f"denoiser.{name}"].half()), name


@pytest.mark.slow
def test_a_killed_run_ends_on_the_same_bits(cache: Path, whole_run: Path, tmp_path: Path) -> None:
    process = child(cache, tmp_path)
    log, deadline = tmp_path / "losses.csv", time.monotonic() + 120
    while not log.exists() or len(log.read_bytes().splitlines()) < STEPS // 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0].decode()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "model.safetensors").exists()
    step = torch.load(tmp_path / "last.pt", weights_only=True)["step"]
    assert 0 < step < STEPS
    with open(log, "a") as stream:
        stream.write(f"{STEPS - 1},0.1")  # a later row, cut off
    (tmp_path / "last.pt.partial").write_bytes(b"PK")  # a kill in the middle of writing

    process = child(cache, tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output.decode()
    for key in ("module", "ema"):
        whole, resumed = (torch.load(f / "last.pt", weights_only=True)[key] for f in (whole_run, tmp_path))
        assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
    whole, resumed = (load_file(folder / "model.safetensors") for folder in (whole_run, tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    curves = [[(row["step"], row["loss"]) for row in rows(f / "losses.csv")] for f in (whole_run, tmp_path)]
    assert curves[0] == curves[1], "one row a step, on the same curve"
    assert (whole_run / "validation.csv").read_text() == (tmp_path / "validation.csv").read_text()


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(cache: Path, whole_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (whole_run / "losses.csv").read_text()
    assert main(["pretrain", str(cache), "--output", str(whole_run), *TINY, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == STEPS
    assert (whole_run / "losses.csv").read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "3"], "was started with seed 0 instead of 3"),
        (["--batch", "4"], "was started with batch 2 instead of 4"),
        (["--channels", "8", "20"], "Channels 8 20 cannot be built."),
        (["--window", "18"], "A window of 18 voxels cannot be halved often enough."),
        (["--learning-rate", "0"], "Learning rate, workers or seed is out of range."),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    cache: Path, whole_run: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", str(cache), "--output", str(whole_run), *TINY, *options]) == 2
    assert message in capsys.readouterr().err


def test_what_cannot_be_trained_is_refused(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cases.json").write_text('{"training": [], "validation": []}')
    assert main(["pretrain", str(tmp_path), "--output", str(tmp_path / "run"), *TINY]) == InputError.exit_code
    assert "holds no training cases" in capsys.readouterr().err
    assert main(["pretrain", str(tmp_path / "absent"), "--output", str(tmp_path / "run"), *TINY]) == 2
    assert "is no folder made by `meddifffm prepare`" in capsys.readouterr().err
    assert main(["pretrain", str(cache), "--output", str(tmp_path / "run"), *TINY, "--accelerator", "abacus"]) == 3
    assert "Training on 1 x 'abacus' is not possible" in capsys.readouterr().err


@pytest.mark.slow
def test_weights_to_start_from_bring_their_network(
    cache: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    initial = str(whole_run / "model.safetensors")
    common = ["pretrain", str(cache), "--output", str(tmp_path), "--initial", initial, "--accelerator", "cpu",
              "--window", "16", "--batch", "1", "--steps", "1", "--validation-windows", "2",
              "--learning-rate", "1e-9"]  # fmt: skip
    assert main([*common, "--channels", "8", "64"]) == 2
    assert "contradicts the weights" in capsys.readouterr().err
    assert main(common) == 0
    assert read_header(tmp_path / "model.safetensors")["config"]["network"]["channels"] == [8, 32]
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        torch.testing.assert_close(tensor, load_file(initial)[name], atol=2e-3, rtol=2e-3)


@pytest.mark.slow
def test_a_stopped_run_says_how_to_go_on(cache: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    from MedDiffFMLib.training.loop import TrainingLoop

    one_step = TrainingLoop._one_step

    def interrupted(self: TrainingLoop) -> None:
        one_step(self)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TrainingLoop, "_one_step", interrupted)
    assert main(["pretrain", str(cache), "--output", str(tmp_path), *TINY]) == 130
    assert f"Stopped after step 1 of {STEPS}; the same command continues." in capsys.readouterr().err
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 1


@pytest.mark.slow
def test_calibrated_weights_give_an_anomaly_map(
    small_ct: Volume, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = whole_run / "model.safetensors", tmp_path / "calibrated.safetensors"
    with pytest.raises(ModelError, match="carries no calibration"):
        Anomaly().run(Case(small_ct), Run(load_model(str(source), device="cpu")))
    write_volume(small_ct, tmp_path / "chest.nrrd")
    abnormal = np.zeros(small_ct.voxels.shape, np.uint8)
    abnormal[10:20, 30:40, 18:26] = 1
    write_volume(small_ct.with_voxels(abnormal), tmp_path / "spine.nrrd", mask=True)
    write_volume(small_ct.with_voxels(0 * abnormal), tmp_path / "nothing.nrrd", mask=True)
    cases = [
        {"name": "a", "image": "chest.nrrd", "label": "spine.nrrd"},
        {"name": "b", "image": "chest.nrrd", "label": "nothing.nrrd"},
    ]
    for name, row in (("one", cases[:1]), ("both", cases)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"validation": row}))
    command = ["calibrate", str(source), str(tmp_path / "one.json"), "-o", str(target), "--device", "cpu", "--json"]
    assert main(command) == 0
    answer = json.loads(capsys.readouterr().out)
    header = read_header(target)
    assert header["calibration"] == answer["calibration"] and answer["calibration"]["cases"] == {"all": 1}
    assert header["config"] == read_header(source)["config"]
    assert all(torch.equal(tensor, load_file(source)[name]) for name, tensor in load_file(target).items())
    assert main(command) == 2, "the output exists"
    capsys.readouterr()

    assert main([*command[:2], str(tmp_path / "both.json"), *command[3:], "--overwrite"]) == 0
    counted = json.loads(capsys.readouterr().out)["calibration"]["levels"]
    alone = {key: sum(level["all"]["voxels"]) for key, level in answer["calibration"]["levels"].items()}
    both = {key: sum(level["all"]["voxels"]) for key, level in counted.items()}
    labeled = int((abnormal.astype(bool) & body_mask(small_ct.voxels)).sum())
    left_out = {both[key] - 2 * alone[key] for key in alone}
    assert labeled > 500 and left_out == {labeled}, "the label's voxels and no others"

    result = Anomaly().run(Case(small_ct), Run(load_model(str(target), device="cpu")))
    score = result.volumes["anomaly"]
    assert score.shape == small_ct.voxels.shape and np.isfinite(score).all() and score.max() > 0
