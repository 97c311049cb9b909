"""Rows of an evaluation that was stopped: each is kept as soon as it is there, and read instead of computed again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...core.atomic_files import atomic_path
from .protocols import Row


def stored_rows(file: Path, make: Callable[[], list[Row]]) -> list[Row]:
    """``make()``, or what it gave when ``file`` was written; through JSON either way, so that both are alike."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps([dataclasses.asdict(row) for row in make()])
        with atomic_path(file, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))]


def file_name(*names: str, key: Any) -> str:
    """A file's name from readable parts and everything that its content depends on."""
    slug = "-".join("".join(c if c.isalnum() or c == "_" else "-" for c in name) for name in names if name)
    return f"{slug}-{hashlib.sha256(repr(key).encode()).hexdigest()[:12]}.json"
