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
    if not hasattr(os, "setpriority"):  # Windows: Slicer keeps its priority there
        return True
    if os.environ.get(ENVIRONMENT) == NORMAL and os.getpriority(os.PRIO_PROCESS, 0) > 0:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)
    return os.getpriority(os.PRIO_PROCESS, 0) <= 0
