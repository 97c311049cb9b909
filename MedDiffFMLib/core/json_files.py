"""JSON files: values made plain, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from .atomic_files import atomic_path


def write_json(value: Any, path: Path, *, overwrite: bool = False) -> None:
    """Write JSON, complete or not at all.

    Raises:
        OutputError: exists, no permission, no space.
    """
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(json_ready(value), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def json_ready(value: Any) -> Any:
    """``value`` with numpy scalars, arrays, tuples and paths as plain JSON values; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [json_ready(item) for item in value]
    if hasattr(value, "tolist"):  # numpy, without importing it
        return json_ready(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value
