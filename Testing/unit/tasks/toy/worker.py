"""The library's own worker process, which knows the toy besides its tasks."""

from __future__ import annotations

import os
import sys

from MedDiffFMLib.tasks.registry import TASKS
from MedDiffFMLib.worker import server
from Testing.unit.tasks.toy.spec import Toy

if __name__ == "__main__":
    TASKS["toy"] = Toy
    code = server.main()
    sys.stderr.flush()
    os._exit(code)
