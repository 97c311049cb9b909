"""Curves of a training in TensorBoard and MLflow, read back by their own readers; a run that goes on stays one run."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import DependencyError
from MedDiffFMLib.datasets.prepare import prepare
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.training.loggers import flattened, make_logger
from Testing.unit.phantoms import body

TINY = ["--channels", "8", "32", "--window", "16", "--batch", "2", "--accelerator", "cpu", "--validate-every", "1000",
        "--float32", "--quiet"]  # fmt: skip
NAMES = ["losses/data_wait", "losses/gradient_norm", "losses/loss", "losses/seconds"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One case to train on."""
    folder = tmp_path_factory.mktemp("cts")
    write_volume(body((30, 40, 40)), folder / "ball.nrrd")
    (folder / "datalist.json").write_text(json.dumps({"training": ["ball.nrrd"]}))
    prepare(folder / "datalist.json", folder / "cache")
    return folder / "cache"


def losses(run: Path) -> list[float]:
    with open(run / "losses.csv", newline="") as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


@pytest.mark.slow
def test_tensorboard_shows_the_curve(cache: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert main(["pretrain", str(cache), "-o", str(tmp_path), *TINY, "--steps", "2", "--logger", "tensorboard"]) == 0
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(NAMES) <= set(events.Tags()["scalars"])
    shown = events.Scalars("losses/loss")
    assert [event.step for event in shown] == [1, 2]
    assert [event.value for event in shown] == pytest.approx(losses(tmp_path))


@pytest.mark.slow
def test_mlflow_keeps_one_run_through_a_pause(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a database beside the run, as without a server."""
    tracking = pytest.importorskip("mlflow.tracking")
    pytest.importorskip("alembic")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for steps in ("1", "2"):
        words = ["pretrain", str(cache), "-o", str(tmp_path), *TINY, "--steps", steps, "--learning-rate", "0.001"]
        assert main([*words, "--logger", "mlflow"]) == 0
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("meddifffm").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["loop.learning_rate"] == "0.001"
    history = client.get_metric_history(run.info.run_id, "losses/loss")
    assert [point.step for point in history] == [1, 2]
    assert [point.value for point in history] == pytest.approx(losses(tmp_path))


def test_settings_are_named_by_their_way() -> None:
    assert flattened({"a": 1, "b": {"c": {"d": "x"}, "e": [1]}}) == {"a": 1, "b.c.d": "x", "b.e": [1]}


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_said_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match=r"is missing.*meddifffm\[logging\]"):
        make_logger(name, tmp_path)
