"""Owners of temporary files, and arrays that are no files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from MedDiffFMLib.core.atomic_files import owned_name, sweep
from MedDiffFMLib.core.safe_load import load_array

ROOT = Path(__file__).resolve().parents[3]
_NAME = "from MedDiffFMLib.core.atomic_files import owned_name; print(owned_name())"


def _of_dead_process(*wrapper: str) -> str:
    command = [*wrapper, sys.executable, "-c", _NAME]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"no namespaces here: {done.stderr[-200:]}")
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there age decides")
def test_what_a_dead_process_left_is_swept_and_what_a_live_one_has_is_not(tmp_path: Path) -> None:
    dead, live = (tmp_path / f".{name}.part.a.nrrd" for name in (_of_dead_process(), owned_name()))
    dead.touch(), live.touch()
    assert sweep(tmp_path) == [dead] and live.exists()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces are Linux'")
def test_files_of_another_container_on_this_computer_are_left_alone(tmp_path: Path) -> None:
    other = _of_dead_process("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    (tmp_path / f".{other}.part.a.nrrd").touch()  # its number is that of another process here, or of none
    assert not sweep(tmp_path) and len(os.listdir(tmp_path)) == 1
    os.utime(next(tmp_path.iterdir()), (0, 0))
    assert sweep(tmp_path), "what is old was left behind"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_array(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run-1-0.npy")
    with pytest.raises(ValueError, match="it is no file"):
        load_array(tmp_path / "run-1-0.npy", "c")
