"""Worker and training are not held back by the low priority that Slicer gives itself on Linux."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from MedDiffFMLib.core.process_priority import ENVIRONMENT, NORMAL

CODE = (
    "import os; os.nice(5)\n"
    "from MedDiffFMLib.core.process_priority import ask_for_normal_priority\n"
    "print(ask_for_normal_priority(), os.getpriority(os.PRIO_PROCESS, 0))"
)


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="this system has no nice values")
def test_low_priority_is_left_where_the_starter_wished_and_the_system_allows() -> None:
    def told(**more: str) -> list[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
        run = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
        return run.stdout.split()

    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert told()[1] == str(min(before + 5, 19))  # who was niced on purpose stays so
    allowed, now = told(**{ENVIRONMENT: NORMAL})
    assert (allowed == "True") == (int(now) <= 0)
    if os.geteuid() == 0:
        assert now == "0"


@pytest.mark.skipif(not hasattr(os, "setpriority") or os.geteuid() != 0, reason="only root may raise its priority")
def test_a_training_takes_normal_priority(tmp_path: Path) -> None:
    code = (
        "import os; os.nice(5)\n"
        "from MedDiffFMLib.training.finetune.background import main\n"
        f"print(main([{str(tmp_path)!r}]), os.getpriority(os.PRIO_PROCESS, 0))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", ENVIRONMENT: NORMAL}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["2", "0"]  # there is no request, but it was at normal priority by then
