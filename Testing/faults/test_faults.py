"""The short form: some faults of a fixed seed, and each defect that the long form once found."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.cli.console import Console
from MedDiffFMLib.core.atomic_files import atomic_path, owned_name, sweep
from MedDiffFMLib.core.errors import ModelError, OutputError, expected
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.datasets.dataset_folder import Dataset
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import load_denoiser
from MedDiffFMLib.runner import outputs
from MedDiffFMLib.runner.outputs import OutputPlan, publish
from MedDiffFMLib.tasks.base import TaskResult

from .scenarios import damaged_files, small_case

ROOT = Path(__file__).resolve().parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="forks, looks at /proc, and mounts where it may")


@linux
@pytest.mark.slow
def test_faults_lose_nothing(tmp_path: Path) -> None:
    """In a process of its own, because it forks; commands that start workers are left to the long form."""
    quick = [word for name in ("batch", "overwrite", "training", "dataset", "install") for word in ("--scenario", name)]
    command = [sys.executable, "-W", "ignore", "-m", "Testing.faults", "--faults", "14", "--seed", "5",
               "--json", str(tmp_path / "outcomes.json"), *quick]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    outcomes = json.loads((tmp_path / "outcomes.json").read_text())
    bad = [outcome for outcome in outcomes if outcome["problems"]]
    assert done.returncode == 0 and len(outcomes) == 14 and not bad, (bad, done.stderr[-2000:])
    assert len({outcome["kind"] for outcome in outcomes}) > 7
    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.json"]


# What the long form found


def result() -> TaskResult:
    image, _ = small_case(0)
    return TaskResult({"denoised": image.voxels, "noise": image.voxels})


REPORT = {"settings": {"task": "denoise", "model": "m", "parameters": {}}, "model": {"name": "m"}, "synthetic": False}


def test_replaced_results_come_back_when_the_last_cannot_be_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, (image, _) = OutputPlan(tmp_path, "ct_denoise", ".nrrd"), small_case(0)
    for path in plan.expected("denoise"):
        path.write_bytes(b"old " + path.name.encode())
    real = os.replace

    def failing(source: Path, target: Path) -> None:
        if Path(target) == plan.report and "before" not in Path(source).parts:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(outputs.os, "replace", failing)
    with pytest.raises(OutputError, match="Input/output error"):
        publish(plan, image, result(), dict(REPORT), overwrite=True)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        p.name: b"old " + p.name.encode() for p in plan.expected("denoise")
    }
    publish(plan, image, result(), dict(REPORT), overwrite=True)
    assert not damaged_files(tmp_path) and len(list(tmp_path.iterdir())) == 3


def test_only_what_the_dead_left_is_swept(tmp_path: Path) -> None:
    mine = tmp_path / f".{owned_name()}.part.a.nrrd"
    dead = [tmp_path / mine.name.replace(f"-{os.getpid()}-", f"-{n}-") for n in (4194305, 4194306)]
    dead[0].write_bytes(b"half")
    (dead[1] / "before").mkdir(parents=True)
    mine.write_bytes(b"half")
    (tmp_path / ".part.b.nrrd").write_bytes(b"of somebody else")
    assert sorted(sweep(tmp_path)) == sorted(dead)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, ".part.b.nrrd"])


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    for name in ("n" * 250 + ".json", "é" * 125 + ".json"):
        with atomic_path(tmp_path / name) as temporary:
            temporary.write_text("{}")
        assert (tmp_path / name).read_text() == "{}"


@pytest.mark.parametrize("position", [0.2, 0.5, 0.9])
def test_a_flipped_bit_in_weights_is_seen_without_a_catalogue(
    position: float, tiny_model_file: Path, tmp_path: Path
) -> None:
    content = bytearray(tiny_model_file.read_bytes())
    content[int(len(content) * position)] ^= 1
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        load_denoiser(path)


def test_a_full_disk_is_called_so_however_it_shows() -> None:
    failures = [OSError(errno.ENOSPC, "x"), OSError(errno.EFBIG, "x"), OSError("8192 requested and 0 written")]
    assert {str(expected(failure)) for failure in failures} == {str(expected(failures[0]))}
    for number, word in ((errno.EROFS, "permission"), (errno.ENAMETOOLONG, "too long"), (errno.ENOMEM, "memory")):
        assert word in str(expected(OSError(number, "x", "file")))
    assert expected(OSError(errno.EBADF, "a defect")) is None
    assert "memory" in str(expected(RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)")))


def test_a_console_without_readers_lets_the_work_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Broken())
    monkeypatch.setattr(sys, "stdout", None)
    console = Console(as_json=True, quiet=False, cancel=CancelToken())
    console.note("nobody hears this")
    console.warning("nor this")
    console.answer({"status": "done"}, "done")
    print("a library's own word", file=console.spare_stdout)


def test_a_case_that_another_process_added_first_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from MedDiffFMLib.core.errors import InputError

    dataset, (image, mask) = Dataset.create(tmp_path / "ours"), small_case(0)
    seen: list[str] = []
    refuse = dataset._refuse_taken

    def too_late(name: str) -> None:
        seen.append(name)
        if len(seen) > 1:
            refuse(name)

    dataset.add("c", image, mask)
    monkeypatch.setattr(dataset, "_refuse_taken", too_late)
    with pytest.raises(InputError, match="There is a case 'c'"):
        dataset.add("c", Volume(image.voxels + np.int16(1), image.ijk_to_ras), mask)
    assert not [path for path in (tmp_path / "ours" / "cases").iterdir() if path.name.startswith(".")]
