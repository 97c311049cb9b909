"""Fine-tuning: from local cases to a model in the list, whatever happens on the way."""

from __future__ import annotations

import contextlib
import csv
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError, ModelError, OutputError
from MedDiffFMLib.core.file_lock import locked
from MedDiffFMLib.datasets.dataset_folder import Dataset
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.catalogue import list_models
from MedDiffFMLib.models.checkpoint import build_denoiser, load_model, save_model
from MedDiffFMLib.models.controlnet_file import load_control
from MedDiffFMLib.networks.unet import NetworkConfig
from MedDiffFMLib.training.finetune.batches import SampleStream
from MedDiffFMLib.training.finetune.cases import number_lesions, open_control_cases
from MedDiffFMLib.training.finetune.config import PRESETS, settings
from MedDiffFMLib.training.finetune.lesion import LesionTask
from MedDiffFMLib.training.finetune.progress_log import read_progress
from MedDiffFMLib.training.finetune.run import FinetuneResult, finetune
from MedDiffFMLib.training.finetune.setup import WRITER_LOCK_FILE
from Testing.unit.phantoms import body

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, EVERY = 20, 4
SHAPE = (20, 28, 28)
TINY: dict[str, Any] = {
    "steps": STEPS,
    "batch": 2,
    "window": 16,
    "learning_rate": 3e-3,
    "validate_every": 10,
    "checkpoint_every": EVERY,
    "patience": 99,
    "accelerator": "cpu",
    "register": False,
}
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, so that nothing is imported twice")


def case(number: int) -> tuple[Volume, np.ndarray]:
    """A body with a bright ball that its mask marks."""
    rng = np.random.default_rng(number)
    image = body(SHAPE, 2.5)
    axes = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    ball = sum((a - c) ** 2 for a, c in zip(axes, rng.uniform(9, 12, 3), strict=True)) <= 9
    voxels = image.voxels + np.where(ball, 150, 0) + rng.integers(-15, 16, SHAPE)
    return image.with_voxels(voxels.astype(np.int16)), ball.astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients to train on, one to validate on."""
    dataset = Dataset.create(tmp_path_factory.mktemp("data") / "ours")
    for number in range(3):
        dataset.add(f"c{number}", *case(number))
    dataset.set_validation(["c2"])
    return dataset.folder


@pytest.fixture(scope="module")
def prior(tiny_model_file: Path) -> str:
    return str(tiny_model_file)


@pytest.fixture(scope="module")
def whole(data: Path, prior: str, tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    """A run that nothing interrupted."""
    return finetune(data, tmp_path_factory.mktemp("runs") / "whole", "lesion", prior=prior, **TINY)


def rows(path: Path) -> list[dict[str, float]]:
    """A CSV of numbers; none where it is not there yet."""
    try:
        text = path.read_text()  # a run that starts over takes the file away between a look and a read
    except FileNotFoundError:
        return []
    return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(text.splitlines())]


def curve(folder: Path) -> list[tuple[float, float]]:
    return [(row["step"], row["loss"]) for row in rows(folder / "losses.csv")]


def state_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "last.pt", weights_only=True)


def child(work: Callable[[], object], environment: dict[str, str] | None = None) -> Any:
    """Start ``work`` in a process of its own, without output."""

    def silently() -> None:
        os.environ.update(environment or {})
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            work()

    process = multiprocessing.get_context("fork").Process(target=silently)
    process.start()
    return process


def wait_for(condition: Callable[[], bool], process: Any, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.002)


# From cases to a model in the list


@pytest.mark.slow
def test_the_result_is_listed_and_usable_by_its_name(
    data: Path, prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDDIFFFM_MODELS", str(tmp_path / "own"))
    folder = tmp_path / "Run 1"
    command = ["finetune", "--task", "super-resolution", "--data", str(data), "-o", str(folder), "--prior", prior,
               "--accelerator", "cpu", "--window", "16", "--batch", "1", "--steps", "3", "--validate-every", "2",
               "--json"]  # fmt: skip
    assert main(command) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model"] == "super-resolution-run-1" and answer["state"] == "done" and answer["steps"] == 3
    model = load_model(prior, device="cpu")
    control = load_control(answer["model"], model, "super-resolution")
    assert control.description["prior"]["sha256"] == model.sha256
    assert control.description["training"]["best_step"] == answer["best_step"] in (2, 3)
    entry = next(entry for entry in list_models("control") if entry.name == answer["model"])
    assert entry.prior == model.sha256 and entry.task == "super-resolution" and entry.is_own
    card = (folder / "card.md").read_text()
    assert card == (entry.path.parent / entry.card).read_text()
    assert all(words in card for words in (model.sha256, entry.sha256, "2 training and 1 validation", "| c2 |"))
    assert {path.name for path in folder.iterdir()} == {
        "best.safetensors", "cache", "card.md", "check.json", "check.txt", "config.json", "last.pt", "losses.csv",
        "preview.png", "progress.jsonl", "result.json", "validation.csv", "writing.lock",
    }  # fmt: skip

    before = (folder / "losses.csv").read_text()
    assert main(command) == 0, "a finished run is not trained again, and replaces its own model"
    assert json.loads(capsys.readouterr().out)["steps"] == 3 and (folder / "losses.csv").read_text() == before
    assert main([*command[:6], str(tmp_path / "run-1"), *command[7:]]) == 2
    assert "There is a model called 'super-resolution-run-1' already" in capsys.readouterr().err


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_and_patience_ends(
    data: Path, prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task's figure falls, then rises twice: lower is better here."""
    figures, seen = [9.0, 5.0, 3.0, 4.0, 3.5, 1.0], []

    def validate(self: LesionTask, denoiser: Any, cases: Any, preview: Any, precision: str) -> dict[str, float]:
        seen.append({name: tensor.clone() for name, tensor in denoiser.control.state_dict().items()})
        return {"hu_distance": figures[len(seen) - 1]}

    monkeypatch.setattr(LesionTask, "validate", validate)
    result = finetune(data, tmp_path, "lesion", prior=prior, **{**TINY, "validate_every": 3, "patience": 2})
    assert (result.state, result.steps, result.best_step) == ("early", 12, 6)
    assert (result.before, result.value) == (9.0, 3.0) and result.warnings[-1:] != ("",)
    kept = load_file(result.weights)  # type: ignore[arg-type]
    assert all(torch.equal(tensor, seen[2][name].half()) for name, tensor in kept.items() if tensor.is_floating_point())
    again = finetune(data, tmp_path, "lesion", prior=prior, **{**TINY, "validate_every": 3, "patience": 2})
    assert (again.state, again.steps, len(seen)) == ("early", 12, 5), "it stays ended"
    more = finetune(data, tmp_path, "lesion", prior=prior, **{**TINY, "steps": 15, "validate_every": 3, "patience": 3})
    assert (more.steps, more.best_step, more.value) == (15, 15, 1.0), "more patience goes on from there"


@pytest.mark.slow
def test_no_improvement_over_the_prior_is_told(data: Path, prior: str, tmp_path: Path, monkeypatch) -> None:
    figures = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(LesionTask, "validate", lambda *_: {"hu_distance": next(figures)})
    result = finetune(data, tmp_path, "lesion", prior=prior, **{**TINY, "steps": 2, "validate_every": 1})
    assert result.warnings[-1] == "No checkpoint was better on the validation cases than the prior before training."


@pytest.mark.slow
def test_only_the_controlnet_is_trained_and_saved(whole: FinetuneResult, prior: str) -> None:
    kept = set(load_file(whole.weights))  # type: ignore[arg-type]
    assert kept and not any(name in kept for name in load_file(prior))
    state = state_of(whole.folder)
    assert {name.removeprefix("part.") for name in state["module"]} == kept
    moved = [not torch.equal(state["module"][name], state["ema"][name]) for name in state["module"]]
    assert any(moved), "the average lags behind"


@pytest.mark.slow
def test_progress_can_be_drawn(whole: FinetuneResult) -> None:
    lines = read_progress(whole.folder)
    states = [line["state"] for line in lines]
    assert states[0] == "checking" and states[-1] == "done" and set(states) >= {"preparing", "training", "validated"}
    validated = [line for line in lines if line["state"] == "validated"]
    assert [line["step"] for line in validated] == [0, 10, 20]
    assert all(line["metric"] == "hu_distance" and line["value"] >= 0 for line in validated)
    assert validated[-1]["best"] == whole.value and validated[-1]["best_step"] == whole.best_step
    for line in lines:
        if line["state"] == "training":
            assert 0 < line["step"] <= STEPS == line["steps"] and line["loss"] > 0 and line["seconds_left"] >= 0
    assert whole.peak_memory["main"] > 1e8 and whole.seconds > 0


# Killed, stopped, divided


@pytest.mark.slow
@needs_fork
def test_a_run_killed_at_random_moments_ends_on_the_same_bits(
    data: Path, prior: str, whole: FinetuneResult, tmp_path: Path
) -> None:
    generator = np.random.default_rng(11)

    def work() -> None:
        finetune(data, tmp_path, "lesion", prior=prior, **TINY)

    kills = 0
    while kills < 4:
        done = len(curve(tmp_path))
        if kills == 0:
            at = lambda: (tmp_path / "cache").exists()  # noqa: E731
        else:
            target = 2 if kills == 1 else int(generator.integers(done - EVERY, STEPS - 2))
            at = lambda n=target: len(rows(tmp_path / "losses.csv")) > n  # noqa: E731
        process = child(work)
        wait_for(at, process)
        time.sleep(generator.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        logged, kept = len(curve(tmp_path)), state_of(tmp_path)["step"] if (tmp_path / "last.pt").exists() else 0
        assert logged - kept <= EVERY, "at most one checkpoint interval is lost"
    assert not (tmp_path / "result.json").exists()
    work()

    assert curve(tmp_path) == curve(whole.folder), "one row a step, on the same curve"
    assert (tmp_path / "validation.csv").read_text() == (whole.folder / "validation.csv").read_text()
    one, other = (state_of(folder) for folder in (tmp_path, whole.folder))
    for key in ("module", "ema"):
        assert all(torch.equal(one[key][name], tensor) for name, tensor in other[key].items())
    assert [one["observer"][key] for key in ("best", "best_step", "worse")] == [
        other["observer"][key] for key in ("best", "best_step", "worse")
    ]
    kept = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in load_file(whole.weights).items())  # type: ignore[arg-type]
    steps = [line["step"] for line in read_progress(tmp_path) if line["state"] == "validated"]
    assert steps == [0, 10, 20], "progress tells each validation once"


@pytest.mark.slow
@needs_fork
def test_two_processes_train_what_one_does(data: Path, prior: str, whole: FinetuneResult, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    run = {**TINY, "steps": 8, "devices": 2, "bfloat16": False}
    alone = finetune(data, tmp_path / "one", "lesion", prior=prior, **{**run, "devices": 1})

    def environment(rank: int) -> dict[str, str]:
        """What torchrun tells its processes."""
        return {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "GROUP_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "TORCHELASTIC_RUN_ID": "test",
        }

    processes = [
        child(lambda: finetune(data, tmp_path / "two", "lesion", prior=prior, **run), environment(rank))
        for rank in range(2)
    ]
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    one, two = (rows(tmp_path / name / "losses.csv") for name in ("one", "two"))
    assert len(two) == 8, "one process logs"
    for alone_row, together in zip(one, two, strict=True):  # the gradient is that of the whole batch, its loss is not
        assert together["gradient_norm"] == pytest.approx(alone_row["gradient_norm"], rel=5e-3)
    ours, theirs = (load_file(tmp_path / name / "best.safetensors") for name in ("two", "one"))
    apart = sum(float((ours[name].float() - tensor.float()).square().sum()) for name, tensor in theirs.items())
    size = sum(float(tensor.float().square().sum()) for tensor in theirs.values())
    assert (apart / size) ** 0.5 < 2e-3
    figures = [rows(tmp_path / name / "validation.csv")[-1]["hu_distance"] for name in ("one", "two")]
    assert figures[0] == pytest.approx(figures[1], rel=0.02) and alone.value == figures[0]


@pytest.mark.slow
def test_a_stopped_run_goes_on(data: Path, prior: str, whole: FinetuneResult, tmp_path: Path, capsys) -> None:
    def stop(event: Any) -> None:
        if event.fraction > 0.2:
            (tmp_path / "stop").touch()

    result = finetune(data, tmp_path, "lesion", prior=prior, progress=stop, **TINY)
    assert result.state == "stopped" and 0 < result.steps < STEPS and not (tmp_path / "card.md").exists()
    assert state_of(tmp_path)["step"] == result.steps
    assert finetune(data, tmp_path, "lesion", prior=prior, **TINY).state == "done"
    assert curve(tmp_path) == curve(whole.folder)


# What goes wrong


def test_bad_data_stop_before_anything_long(
    data: Path, prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Dataset(shutil.copytree(data, tmp_path / "bad"))
    bad.remove("c2")
    (bad.folder / "cases" / "c1" / "label.nrrd").unlink()
    write_volume(Volume(np.ones((4, 4, 4), np.uint8), np.eye(4)), bad.folder / "cases" / "c1" / "label.nrrd", mask=True)
    folder = tmp_path / "run"
    assert main(["finetune", "--task", "lesion", "--data", str(bad.folder), "-o", str(folder), "--prior", prior]) == 2
    shown = capsys.readouterr().err
    assert "c1: The mask has 4 x 4 x 4 voxels, the CT 28 x 28 x 20." in shown and str(folder / "check.txt") in shown
    assert "[mask] c1: The mask has 4 x 4 x 4 voxels" in (folder / "check.txt").read_text()
    assert json.loads((folder / "check.json").read_text())["status"] == "error"
    assert not (folder / "cache").exists() and not (folder / "last.pt").exists()
    assert read_progress(folder)[-1]["state"] == "failed" and "c1" in read_progress(folder)[-1]["message"]


@pytest.mark.slow
def test_other_settings_cases_or_priors_do_not_continue_a_run(
    data: Path, prior: str, whole: FinetuneResult, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "run"))
    for changes, words in (
        ({"batch": 4}, "was started with batch 2 instead of 4"),
        ({"window": 8}, "was started with options"),
        ({"labels": (1,)}, "was started with labels"),
        ({"seed": 3}, "was started with seed 0 instead of 3"),
    ):
        with pytest.raises(InputError, match=words):
            finetune(data, folder, "lesion", prior=prior, **{**TINY, **changes})
    other = Dataset(shutil.copytree(data, tmp_path / "more"))
    other.add("c9", *case(9))
    with pytest.raises(InputError, match="The cases or their splits have changed"):
        finetune(other.folder, folder, "lesion", prior=prior, **TINY)
    network = NetworkConfig(channels=(8, 32), attention=(False, False))
    config = {"network": network.as_dict(), "denoiser": "edm"}
    save_model(tmp_path / "other.safetensors", build_denoiser(config).state_dict(), config)
    with pytest.raises(InputError, match="was started with the prior tiny"):
        finetune(data, folder, "lesion", prior=str(tmp_path / "other.safetensors"), **TINY)
    with pytest.raises(ModelError, match="was trained with the prior 'tiny'"):
        load_control(str(whole.weights), load_model(str(tmp_path / "other.safetensors"), device="cpu"))


@pytest.mark.slow
def test_two_runs_in_one_folder_would_mix_their_checkpoints(data: Path, prior: str, tmp_path: Path) -> None:
    with (
        locked(tmp_path, name=WRITER_LOCK_FILE),
        pytest.raises(InputError, match="Another fine-tuning run is writing to"),
    ):
        finetune(data, tmp_path, "lesion", prior=prior, **TINY)
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["last.pt", "best.safetensors"])
def test_a_full_disk_leaves_the_last_checkpoint(
    name: str, data: Path, prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file may grow beyond half of the checkpoint's size, or of the kept weights', which are due before it."""
    import resource

    figures = iter(range(100, 0, -1))
    monkeypatch.setattr(LesionTask, "validate", lambda *_: {"hu_distance": float(next(figures))})
    run = {**TINY, "steps": 6, "validate_every": 3, "checkpoint_every": 3}
    finetune(data, tmp_path, "lesion", prior=prior, **{**run, "steps": 3})
    kept = {path: path.read_bytes() for path in (tmp_path / "last.pt", tmp_path / "best.safetensors")}
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    more = {**run, "steps": 9, "validate_every": 99} if name == "last.pt" else run
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept[tmp_path / name]) // 2, hard))
    try:
        with pytest.raises(OutputError) as caught:
            finetune(data, tmp_path, "lesion", prior=prior, **more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert name in caught.value.cause and "cannot be written" in caught.value.cause
    assert "Free some space" in caught.value.remedy
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert not list(tmp_path.glob("*.partial"))
    assert finetune(data, tmp_path, "lesion", prior=prior, **run).steps == 6 == len(curve(tmp_path))


@pytest.mark.slow
def test_a_loss_that_is_no_number_names_the_case(
    data: Path, prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scans of one case turn out to give no loss; the checkpoint before is kept."""
    good, calls = LesionTask.loss, []

    def spoilt(self: LesionTask, denoiser: Any, batch: Any) -> torch.Tensor:
        calls.append(1)
        losses = good(self, denoiser, batch)
        return losses * torch.tensor([1.0, float("nan")]) if len(calls) == 8 else losses

    monkeypatch.setattr(LesionTask, "loss", spoilt)
    with pytest.raises(ModelError) as caught:
        finetune(data, tmp_path, "lesion", prior=prior, **TINY)
    state = state_of(tmp_path)
    assert state["step"] == 4 and all(torch.isfinite(tensor).all() for tensor in state["module"].values())
    assert str(tmp_path / "last.pt") in caught.value.remedy
    names = {"c0", "c1"}
    assert any(caught.value.cause == f"The loss is not finite at step 8 (case {name})." for name in names)
    assert read_progress(tmp_path)[-1]["message"].startswith("The loss is not finite at step 8")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preset": "huge"}, "There is no preset called 'huge'"),
        ({"task": "walking"}, "There is no fine-tuning task called 'walking'"),
        ({"window": 18}, "A window of 18 voxels does not fit the prior"),
        ({"steps": 0}, "steps = 0 is not possible"),
        ({"learning_rate": 0.0}, "out of range"),
        ({"labels": (0,)}, "out of range"),
        ({"batches": 2}, "There is no setting called 'batches'"),
        ({"register": True, "name": "No name"}, "cannot be a model's name"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(
    changes: dict[str, Any], words: str, data: Path, prior: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        finetune(data, tmp_path / "run", **{"task": "lesion", "prior": prior, **TINY, **changes})
    assert not (tmp_path / "run" / "cache").exists()


def test_presets_fit_the_shipped_prior() -> None:
    """Windows can be halved as often as the starter network does."""
    for name in PRESETS:
        config = settings("lesion", name)
        assert config.options["window"] % 16 == 0
        assert config.loop.checkpoint_every <= config.loop.validate_every <= config.loop.steps


@pytest.mark.slow
def test_what_drawing_processes_are_sent_is_small(whole: FinetuneResult) -> None:
    """On macOS and Windows they get samples and collation pickled; whole volumes must not be in it."""
    cases = open_control_cases(whole.folder / "cache", "training")
    task = LesionTask(window=16)
    stream = SampleStream(task, cases, 2, 0, SimpleNamespace(world_size=1, global_rank=0), 2)
    sent = pickle.dumps((task.samples(cases, 0, 0, 2), stream._collate))
    assert len(sent) < cases[0].case.levels[0].voxels.nbytes / 4
    samples, collate = pickle.loads(sent)
    batch, names = collate([samples[0], samples[1]])
    assert set(names) <= {"c0", "c1"}
    assert torch.equal(batch.x0, task.collate([task.samples(cases, 0, 0, 2)[n] for n in range(2)]).x0)


# Masks


def test_each_lesion_has_its_number() -> None:
    mask = np.zeros((8, 10, 10), np.uint8)
    mask[1:3, 1:3, 1:3], mask[5:8, 5:9, 5:9], mask[1, 8, 8], mask[4, 4, 4] = 2, 2, 7, 2
    numbered = number_lesions(mask)
    assert numbered.dtype == np.uint8 and ((numbered > 0) == (mask > 0)).all()
    sizes = np.bincount(numbered.ravel())[1:]
    assert sizes.tolist() == [49, 8, 1], "touching at a corner is touching; the largest first"
    assert (number_lesions(mask, (7,)) > 0).sum() == 1
    many = np.zeros((3, 80, 80), np.uint8)
    many[1, ::4, ::4] = 1
    assert number_lesions(many).max() == 255
