"""Write ``tasks.pyi``, the types of the task functions: ``python -m MedDiffFMLib.api.stub``.

Type checkers and editors do not run the code that makes the functions. A test compares the file with the table.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from ..tasks.base import Task
from ..tasks.registry import TASKS
from .task_functions import REQUIRED, arguments, docstring

PATH = Path(__file__).with_name("tasks.pyi")
_HEADER = '''"""Types of the task functions. Made by ``python -m MedDiffFMLib.api.stub``; do not edit."""

from ..core.progress import CancelToken, ProgressCallback
from .inputs import LabelsLike, ModelLike, VolumeLike
from .result import Result
'''


def stub() -> str:
    """Text of the file."""
    return "\n".join([_HEADER, *(_function(task) for task in TASKS.values())])


def _function(task: type[Task]) -> str:
    lines = [f"def {task.name}("]
    only_names = False
    for argument in arguments(task):
        if argument.keyword and not only_names:
            lines.append("    *,")
            only_names = True
        lines.append(f"    {argument.name}: {argument.kind}{_default(argument.default)},")
    text = textwrap.indent(docstring(task), "    ").strip()
    return "\n".join([*lines, ") -> Result:", f'    """{text}', '    """', ""])


def _default(value: Any) -> str:
    """Default value as source text, empty where there is none; texts in double quotes, as the formatter wants them."""
    if value is REQUIRED:
        return ""
    return f" = {json.dumps(value) if isinstance(value, str) else repr(value)}"


if __name__ == "__main__":
    PATH.write_text(stub(), encoding="utf-8")
