"""Untrusted JSON and arrays: read whole and typed, or refused with a ValueError."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any, get_type_hints

MAX_JSON = 1 << 28
"""Bytes; a prepared index of a hundred thousand cases has a tenth of that."""
_MAX_ARRAY_HEADER = 10_000


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: no JSON, nested too deeply, or beyond all measure.
    """
    path = Path(path)
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"it has {path.stat().st_size} bytes")
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_fields(kind: type, values: dict[str, Any]) -> None:
    """Refuse values that do not have the plain types (str, int, float, bool) of a dataclass's fields.

    Raises:
        ValueError: a value of another type; unknown and missing names are the dataclass's own to refuse.
    """
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        expected = hints[field.name]
        fitting = (int, float) if expected is float else (expected,)
        if field.name in values and expected in (str, int, float, bool) and type(values[field.name]) not in fitting:
            raise ValueError(f"{field.name} is no {expected.__name__}")


def plain_path(text: object) -> bool:
    """Whether a text can be a path: some systems refuse a NUL or half a surrogate pair, in many different ways."""
    return isinstance(text, str) and "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def is_there(path: Path) -> bool:
    """Whether an untrusted path exists; one that the system refuses does not."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with characters that a path cannot have
        return False


def plain_name(text: object) -> bool:
    """Whether a text is a name inside of a folder, which leads nowhere else."""
    return plain_path(text) and text not in ("", ".", "..") and "/" not in str(text) and "\\" not in str(text)


def load_array(path: str | os.PathLike[str], mode: str | None = None) -> Any:
    """A .npy file as ``numpy.load`` reads it, without pickle, archives, and promises that the file cannot hold.

    Args:
        mode: of the memory map, None to read into memory.

    Raises:
        OSError: it cannot be read.
        ValueError: no array, of objects, or incomplete.
    """
    import numpy as np

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("it is no file")  # opening a pipe waits for whoever writes, maybe for ever
        with open(path, "rb") as stream:
            version = np.lib.format.read_magic(stream)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"it is of the unknown version {version}")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, dtype = None, None
            with contextlib.suppress(MemoryError):  # what Python's parser says of nested brackets
                shape, _, dtype = read(stream, max_header_size=_MAX_ARRAY_HEADER)
            if shape is None or dtype is None:
                raise ValueError("its header is no description of an array")
            promised = dtype.itemsize
            for size in shape:
                promised *= int(size)  # Python integers do not overflow
            if dtype.hasobject or min(shape, default=0) < 0 or promised > os.fstat(stream.fileno()).st_size:
                raise ValueError("it holds objects, or less than its header promises")
        return np.load(path, mmap_mode=mode, allow_pickle=False)  # type: ignore[arg-type]
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the header is Python text, which can be wrong in many ways
        raise ValueError(" ".join(str(error).split())[:200]) from error
