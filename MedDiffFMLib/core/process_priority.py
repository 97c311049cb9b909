"""Priority of a process that another program has started.

3D Slicer on Linux lowers its own process to nice 19, which its children inherit: beside other work they hardly advance.
"""

from __future__ import annotations

import contextlib
import os

ENVIRONMENT = "MEDDIFFFM_PRIORITY"
NORMAL = "normal"


def ask_for_normal_priority() -> bool:
    """Take normal priority where the starting program wished so and the system allows it (root, or RLIMIT_NICE).

    Returns:
        Whether this process has at least normal priority now.
    """
    return leave_low_priority() if os.environ.get(ENVIRONMENT) == NORMAL else _is_normal()


def leave_low_priority() -> bool:
    """Take normal priority where the system allows it; on Linux for the calling thread and those it starts.

    A program whose child takes normal priority must do so, too: else the child's arithmetic holds up its window.

    Returns:
        Whether it has at least normal priority now.
    """
    if not _is_normal():
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)
    return _is_normal()


def _is_normal() -> bool:
    # Windows has no nice values: Slicer keeps its priority there.
    return not hasattr(os, "setpriority") or os.getpriority(os.PRIO_PROCESS, 0) <= 0
