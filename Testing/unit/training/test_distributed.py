"""Several processes train as one: the same curve, and one stop for all."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.datasets.prepare import prepare
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.training.loss_plot import read_table
from MedDiffFMLib.training.pretrain.batches import Batches
from MedDiffFMLib.training.pretrain.config import PretrainConfig
from MedDiffFMLib.training.pretrain.run import launch
from Testing.unit.phantoms import body

ROOT = Path(__file__).parents[3]
STEPS = 12
RUN = ["--channels", "8", "32", "--window", "16", "--batch", "4", "--accelerator", "cpu", "--steps", str(STEPS),
       "--learning-rate", "0.0003", "--checkpoint-every", "10", "--validate-every", "1000", "--float32"]  # fmt: skip

pytestmark = pytest.mark.skipif(
    os.name == "nt" or not torch.distributed.is_available(), reason="needs signals to process groups"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases to train on."""
    folder = tmp_path_factory.mktemp("cts")
    write_volume(body(spacing=2.0), folder / "ball.nrrd")
    write_volume(body((30, 40, 40)), folder / "other.nrrd")
    (folder / "datalist.json").write_text(json.dumps({"training": ["ball.nrrd", "other.nrrd"]}))
    prepare(folder / "datalist.json", folder / "cache")
    return folder / "cache"


def rows(folder: Path) -> list[dict[str, float]]:
    with open(folder / "losses.csv", newline="") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


@pytest.mark.slow
def test_two_processes_train_as_one_and_stop_together(cache: Path, tmp_path: Path) -> None:
    """Stopped by a signal to the whole group, also to the processes that draw windows; continued by one process.

    The curve is that of one process all the way, and the log has each step once.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    process = subprocess.Popen(
        [sys.executable, "-m", "MedDiffFMLib", "pretrain", str(cache), "-o", str(two), *RUN, "--devices", "2",
         "--workers", "1", "--log-every", "4"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    log, deadline = two / "losses.csv", time.monotonic() + 500
    while not log.exists() or len(log.read_bytes().splitlines()) < STEPS // 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0].decode()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 130, output.decode()
    stopped = torch.load(two / "last.pt", weights_only=True)["step"]
    assert rows(two)[-1]["step"] == stopped and STEPS // 2 - 1 <= stopped < STEPS
    assert output.count(f"Stopped after step {stopped} of {STEPS}".encode()) == 1, "one process speaks for all"
    assert output.count(f"step 4 of {STEPS}".encode()) == 1

    for folder in (one, two):
        assert main(["pretrain", str(cache), "--output", str(folder), *RUN, "--quiet"]) == 0
    curves = [np.array([[row["step"], row["loss"], row["gradient_norm"]] for row in rows(f)]) for f in (one, two)]
    assert curves[0].shape == (STEPS, 3)
    np.testing.assert_allclose(curves[0][:5], curves[1][:5], rtol=1e-4)
    np.testing.assert_allclose(curves[0], curves[1], rtol=5e-3)  # rounding grows from step to step
    whole, shared = (torch.load(folder / "last.pt", weights_only=True) for folder in (one, two))
    for key in ("module", "ema"):
        for name, tensor in whole[key].items():
            torch.testing.assert_close(shared[key][name], tensor, atol=1e-3, rtol=2e-2, msg=f"{key} {name}")
    assert read_table(two / "throughput.csv")["step"].tolist()[0] == 4 and (two / "curves.png").exists()


def test_torchrun_decides_about_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers reach Fabric, which would refuse any others."""
    asked: list[dict] = []

    class Fabric:
        def __init__(self, **options) -> None:
            asked.append(options)

        def launch(self) -> None:
            pass

    monkeypatch.setattr("MedDiffFMLib.training.fabric.Fabric", Fabric)
    launch("cpu", 1, 1)
    for key, value in {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "12"}.items():
        monkeypatch.setenv(key, value)
    launch("cpu", 1, 1)
    assert [(options["devices"], options["num_nodes"]) for options in asked] == [(1, 1), (4, 3)]


def test_a_batch_that_cannot_be_divided_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="A batch of 4 cannot be divided among 3 processes"):
        Batches([], PretrainConfig(batch=4), SimpleNamespace(world_size=3), 0)
