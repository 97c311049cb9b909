"""A batch on a Dask cluster: the results of one process, also where a worker is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.cluster import ClusterPlan, opened, results
from MedDiffFMLib.core.errors import DependencyError, DeviceError, InputError
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.runner import cluster_batch
from MedDiffFMLib.runner.batch import CaseStatus
from MedDiffFMLib.runner.case_files import CaseFiles
from MedDiffFMLib.runner.cluster_batch import Order
from MedDiffFMLib.runner.settings import RunSettings

if find_spec("distributed") is None:  # not imported: it takes a second, in every process that collects tests
    pytest.skip("the extra [cluster] is not installed", allow_module_level=True)
psutil = pytest.importorskip("psutil")

ROOT = Path(__file__).parents[3]
CASES = 5


def arguments(cases: Path, out: Path, model: Path, *options: str) -> list[str]:
    words = ["denoise", "--batch", str(cases), "-o", str(out), "--noise", "20", "--model", str(model)]
    return [*words, "--device", "cpu", "--threads", "1", *options]


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(small_ct: Volume, tmp_path: Path, tiny_model_file: Path) -> None:
    """Two workers, one of them killed after the first case; rows and voxels are those of one process."""
    cases = tmp_path / "cases"
    cases.mkdir()
    for number in range(CASES):
        write_volume(small_ct.with_voxels(small_ct.voxels + number), cases / f"c{number}.nrrd")
    (cases / "bad.nrrd").write_text("no NRRD")
    assert main(arguments(cases, tmp_path / "one", tiny_model_file, "--quiet")) == 2

    words = arguments(cases, tmp_path / "two", tiny_model_file, "--cluster", "local")
    process = subprocess.Popen(
        [sys.executable, "-m", "MedDiffFMLib", *words],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said, killed = [], None
    for line in process.stderr:
        said.append(line)
        if line.startswith("Dashboard"):
            with urlopen(line.split()[-1], timeout=60) as page:
                assert page.status == 200
        if killed is None and ": done" in line:
            killed = busiest(process.pid)
            os.kill(killed, signal.SIGKILL)
    output = process.stdout.read() if process.stdout else ""
    assert process.wait() == 2, said  # for the bad case
    assert killed is not None
    table = [line.split()[:2] for line in output.splitlines()]
    rows = [["bad", "failed"], *([f"c{n}", "done"] for n in range(CASES))]
    assert table[0] == ["case", "status"] and table[1:] == rows, said

    for number in range(CASES):
        for name in (f"c{number}_denoise.nrrd", f"c{number}_denoise_noise.nrrd"):
            one, two = (read_volume(tmp_path / folder / name) for folder in ("one", "two"))
            assert np.array_equal(one.voxels, two.voxels) and one.same_geometry(two)
    before, after = (json.loads((tmp_path / f / "batch_denoise.json").read_text()) for f in ("one", "two"))
    assert [(r["name"], r["status"], r["message"]) for r in before["cases"]] == [
        (r["name"], r["status"], r["message"]) for r in after["cases"]
    ]
    assert not list((tmp_path / "two").glob(".*"))


def test_a_case_whose_worker_died_before_its_answer_is_done(
    small_ct_file: Path, tmp_path: Path, tiny_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that gets the case next finds its results there; a later run of the same batch skips it."""

    def twice(client: None, function: Callable[[Order], CaseStatus], orders: list[Order], cancel: None) -> Any:
        for number, order in enumerate(orders):
            function(order)
            yield number, function(order)

    monkeypatch.setattr(cluster_batch, "opened", lambda plan, note: nullcontext())
    monkeypatch.setattr(cluster_batch, "results", twice)
    settings = RunSettings("denoise", {"noise": 20.0}, model=str(tiny_model_file), device="cpu", threads=1)
    case = CaseFiles(small_ct_file)
    told = [cluster_batch.run_on_cluster(settings, [case], tmp_path, ClusterPlan("local"))[0] for _ in range(2)]
    assert [(row.status, row.message) for row in told] == [("done", ""), ("skipped", "done before")]


def busiest(parent: int) -> int:
    """The worker that computes most among the descendants of the client."""
    workers = [p for p in psutil.Process(parent).children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    return max(workers, key=lambda worker: worker.cpu_times().user).pid


def fatal(number: int) -> int:
    """Ends its process where the number is odd."""
    if number % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
def test_an_order_that_kills_every_worker_is_given_up_and_the_others_are_done() -> None:
    with opened(ClusterPlan("local", 1)) as client:
        found = dict(results(client, fatal, [0, 1, 2]))
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1], DeviceError) and "Worker after worker" in str(found[1])


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (ClusterPlan("gpu-server"), "is no cluster"),
        (ClusterPlan("local", 2, {"cores": 2}), "takes no options"),
    ],
)
def test_what_is_no_cluster_is_refused(plan: ClusterPlan, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan.checked()


@pytest.mark.slow
def test_nobody_at_the_address_and_no_dask_are_said_in_one_line(
    small_ct_file: Path, tiny_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedDiffFMLib.core.cluster.CONNECT_SECONDS", 0.2)
    with pytest.raises(DeviceError, match="tcp://127.0.0.1:9 cannot be used"), opened(ClusterPlan("tcp://127.0.0.1:9")):
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(DependencyError, match=r"distributed is missing.*meddifffm\[cluster\]"),
        opened(ClusterPlan("local")),
    ):
        pass


@pytest.mark.parametrize("more", [["--part", "1/2"], ["--worker", "ssh://x"]])
def test_a_cluster_shares_cases_by_itself(
    more: list[str], small_ct_file: Path, tiny_model_file: Path, tmp_path: Path
) -> None:
    words = arguments(small_ct_file, tmp_path / "out", tiny_model_file, "--quiet", "--cluster", "local")
    assert main([*words, *more]) == 2
