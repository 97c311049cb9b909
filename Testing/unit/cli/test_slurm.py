"""Training as a job: signaled before its time limit, put into the queue again, the same curve and weights."""

from __future__ import annotations

import json
import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from MedDiffFMLib.cli import main
from MedDiffFMLib.datasets.prepare import prepare
from MedDiffFMLib.imaging.io import write_volume
from Testing.unit.phantoms import body

if find_spec("submitit") is None:  # not imported: it takes a second, in every process that collects tests
    pytest.skip("the extra [cluster] is not installed", allow_module_level=True)
psutil = pytest.importorskip("psutil")

ROOT = Path(__file__).parents[3]
STEPS = 30
TINY = ["--channels", "8", "32", "--window", "16", "--batch", "2", "--accelerator", "cpu", "--steps", str(STEPS),
        "--checkpoint-every", "1000", "--validate-every", "1000", "--float32"]  # fmt: skip

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Slurm has no Windows")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One case to train on."""
    folder = tmp_path_factory.mktemp("cts")
    write_volume(body((30, 40, 40)), folder / "ball.nrrd")
    (folder / "datalist.json").write_text(json.dumps({"training": ["ball.nrrd"]}))
    prepare(folder / "datalist.json", folder / "cache")
    return folder / "cache"


def rows(folder: Path) -> list[list[str]]:
    """Step, loss and gradient of each step."""
    lines = (folder / "losses.csv").read_text().splitlines() if (folder / "losses.csv").exists() else [""]
    return [line.split(",")[:3] for line in lines[1:]]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_job_at_its_time_limit_goes_on_with_the_next_step(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By submitit's own executor for one computer, which signals as Slurm does; without a checkpoint before the end."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole, job = tmp_path / "whole", tmp_path / "job"
    assert main(["pretrain", str(cache), "-o", str(whole), *TINY, "--quiet"]) == 0
    capsys.readouterr()
    words = ["--slurm", "cluster=local", "timeout_min=30"]
    assert main(["pretrain", str(cache), "-o", str(job), *TINY, "--json", *words]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "submitted"

    controller, deadline = psutil.Process(int(answer["job"])), time.monotonic() + 500
    while len(rows(job)) < 3:
        assert controller.is_running() and time.monotonic() < deadline, Path(answer["errors"]).read_text()
        time.sleep(0.01)
    (task,) = controller.children()
    task.send_signal(signal.SIGUSR2)
    assert controller.wait(500) == 0
    log = Path(answer["log"]).read_text() + Path(answer["errors"]).read_text()
    assert log.count("Requeued job") == 1 and "Job completed successfully" in log, log
    assert f"of {STEPS}; the same command continues" in log, "it stopped before the end"
    assert rows(job) == rows(whole) and len(rows(whole)) == STEPS
    one, two = (torch.load(folder / "last.pt", weights_only=True) for folder in (whole, job))
    for name, tensor in one["module"].items():
        assert torch.equal(tensor, two["module"][name]), name


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["cluster=local", "tims=3"], 2, "need to be prefixed by an executor name"),
        (["cluster=local", "timeout_min=long"], 2, "timeout_min"),
        (["timeout_min=3"], 3, "srun"),
    ],
)
def test_what_cannot_be_submitted_is_said_in_one_line(
    words: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["pretrain", "cache", "-o", str(tmp_path / "run"), "--slurm", *words]) == code
    assert said in capsys.readouterr().err
