"""Files and folders of the queue that are there after the power failed, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from ..core.atomic_files import owned_name
from ..core.json_files import json_ready


def flush_folder(folder: Path) -> None:
    """Have the system write down which names a folder has; Windows does by itself."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_file(path: Path, content: bytes) -> None:
    """Write a file; when this returns it is on the disk."""
    temporary = path.with_name(f".{owned_name()}.part")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def write_record(path: Path, value: Any) -> None:
    """Write JSON; when this returns it is on the disk."""
    write_file(path, json.dumps(json_ready(value), indent=1, ensure_ascii=False).encode() + b"\n")


def move_folder(source: Path, target: Path) -> None:
    """Rename a folder; when this returns it is so on the disk."""
    os.rename(source, target)
    flush_folder(target.parent)
    flush_folder(source.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder at once; what a killed process left of it is swept later."""
    gone = folder.with_name(f".{owned_name()}.gone")
    os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder and below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
