"""Worker protocol: one JSON object a line, arrays in files.

========  ==========================================================================  =======================
from      message                                                                     answered by
========  ==========================================================================  =======================
client    ``hello`` protocol, package, folder                                         ``hello`` or ``error``
client    ``run`` id, task, inputs, texts, whole, parameters, seed, region, model,     ``result``, ``error`` or
          device, precision, threads                                                  ``cancelled`` of that id
client    ``cancel`` id                                                               (ends the run)
client    ``ping``                                                                    ``pong``
client    ``shutdown``, or the end of its input                                       (the worker exits)
worker    ``hello`` protocol, package, python, torch, devices, process
worker    ``progress`` id, fraction, stage, seconds_left
worker    ``warning`` id, text: memory that ran out and the like
worker    ``result`` id, volumes, tables, texts, facts, warnings, report
worker    ``error`` id or null, kind, cause, remedy, exit_code
worker    ``cancelled`` id;  ``pong``
========  ==========================================================================  =======================

``inputs`` are the volume, the mask, the anatomy and further scans of the task by name; a run of a task that makes a CT
has no volume. A volume that is a piece of a scan comes with a coarse copy of it, ``whole``. An array, also one of
``volumes``, is ``{"file": "name.npy", "ijk_to_ras": 4x4}``, where null in a result stands for the volume's grid; its
file lies in the private folder that the client named in its hello and is read without pickle. What an array shows is
declared by the task; of an X-ray ``beam_source`` may say where its source stood, RAS mm, empty for parallel rays.
This module needs nothing but the standard library, so that a worker in an incomplete Python can still say what is
missing.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core import errors
from ..core.atomic_files import owned_name, sweep
from ..core.errors import MedDiffFMError, reason_of
from ..core.json_files import json_ready
from ..core.safe_load import load_array

PROTOCOL_VERSION = 4
MAXIMUM_LINE = 4 * 1024 * 1024  # bytes; a findings table of thousands of rows fits, a runaway writer does not

SAVED_AT_A_TIME = 4 * 1024 * 1024  # bytes
READ_BYTES = 65536
"""Of a stream at a time."""

FOLDER_PREFIX = "meddifffm-"
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}\.npy")


class ProtocolError(MedDiffFMError):
    """A line from the other side is no message of this protocol."""

    kind = "protocol"


class WorkerError(MedDiffFMError):
    """The worker process cannot start, ended by itself, or failed in an unforeseen way.

    Attributes:
        kind: "start", "crash", "timeout", "version", "busy" or "internal".
    """

    def __init__(self, cause: str, remedy: str = "", kind: str = "crash") -> None:
        super().__init__(cause, remedy)
        self.kind = kind


def encode(kind: str, /, **fields: Any) -> bytes:
    """One line, with its line end."""
    message = json_ready({"type": kind, **fields})
    text = json.dumps(message, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"  # half a surrogate pair becomes its own escape in JSON


def decode(line: str) -> dict[str, Any]:
    """One message.

    Raises:
        ProtocolError: no JSON, no object, no type, or not a finite number in it.
    """
    try:
        message = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ProtocolError(f"This is not a message: {_shortened(line)}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError(f"This message has no type: {_shortened(line)}")
    return message


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _shortened(line: str) -> str:
    return repr(line if len(line) <= 80 else line[:77] + "...")


class LineReader:
    """Bytes in any portions -> complete lines; a UTF-8 character may be cut between two portions."""

    def __init__(self, maximum: int = MAXIMUM_LINE) -> None:
        self._maximum = maximum
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._skipping = False

    def feed(self, data: bytes) -> list[str | ProtocolError]:
        """The lines completed by ``data``; an over-long one is dropped and replaced by the error to report."""
        parts = self._decoder.decode(data).split("\n")
        lines: list[str | ProtocolError] = []
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            if not self._skipping:
                self._rest += part
                if len(self._rest) > self._maximum:
                    lines.append(ProtocolError(f"A line is longer than {self._maximum} bytes."))
                    self._skipping, self._rest = True, ""
            if last:
                break
            if not self._skipping and self._rest.strip():
                lines.append(self._rest.rstrip("\r"))
            self._skipping, self._rest = False, ""
        return lines


class PrivateFolder:
    """A temporary folder for arrays that only this user can enter, with names checked before every use."""

    def __init__(self, parent: str | os.PathLike[str] | None = None) -> None:
        try:
            where = tempfile.gettempdir() if parent is None else parent
            sweep(where)
            prefix = f"{FOLDER_PREFIX}{owned_name()}-"
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=where)).resolve()  # mkdtemp makes it 0700
        except OSError as problem:
            raise errors.OutputError(
                f"No temporary folder can be made: {reason_of(problem)}.", "Free space there, or set TMPDIR."
            ) from None

    @classmethod
    def existing(cls, path: str) -> PrivateFolder:
        """The folder that the other side made.

        Raises:
            ProtocolError: not a folder of this protocol, or one that others may enter.
        """
        folder = cls.__new__(cls)
        folder.path = Path(path)
        try:
            status = os.lstat(path)
        except (OSError, ValueError):
            raise ProtocolError(f"There is no folder {path!r}.") from None
        named = folder.path.is_absolute() and folder.path.name.startswith(FOLDER_PREFIX)
        private = os.name != "posix" or (status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077)
        if not (named and private and stat.S_ISDIR(status.st_mode)):
            raise ProtocolError(f"{path!r} is not a private folder of this protocol.")
        return folder

    def file(self, name: Any) -> Path:
        """The path of a file in this folder.

        Raises:
            ProtocolError: a name that could lead outside.
        """
        if not isinstance(name, str) or not _FILE_NAME.fullmatch(name) or (self.path / name).is_symlink():
            raise ProtocolError(f"{name!r} is not a file name inside the private folder.", "Run again.")
        return self.path / name

    def save(self, name: str, array: Any) -> str:
        """Write one array; gives the name to send."""
        for _ in self.saving(name, array):
            pass
        return name

    def saving(self, name: str, array: Any) -> Iterator[None]:
        """Write one array in steps of some hundredths of a second."""
        import numpy as np

        path = self.file(name)
        array = np.asarray(array)
        step = max(1, len(array) * SAVED_AT_A_TIME // max(array.nbytes, 1)) if array.ndim else 1
        try:
            with open(path, "wb") as stream:
                header = np.lib.format.header_data_from_array_1_0(np.empty((0,), array.dtype))
                np.lib.format.write_array_header_1_0(stream, {**header, "shape": array.shape, "fortran_order": False})
                for first in range(0, len(array), step) if array.ndim else ():
                    stream.write(np.ascontiguousarray(array[first : first + step]).data.cast("B"))
                    yield
        except OSError as problem:
            path.unlink(missing_ok=True)
            raise errors.OutputError(
                f"An array cannot be written to {self.path}: {reason_of(problem)}.",
                "Free space there, or set TMPDIR to a folder with room.",
            ) from None

    def load(self, name: Any, mapped: bool = False) -> Any:
        """Read one array, without pickle; ``mapped`` leaves it on disk until a voxel is used (copy on write).

        Raises:
            ProtocolError: no such array, or a damaged one.
        """
        path = self.file(name)
        try:
            return load_array(path, "c" if mapped else None)
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or str(problem).rstrip(".")
            raise ProtocolError(f"The array {name} cannot be read: {reason}.", "Run again.") from None

    def discard(self, name: Any) -> None:
        """Delete one array where it exists."""
        self.file(name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder; nothing happens when it is gone."""
        shutil.rmtree(self.path, ignore_errors=True)


_ERRORS: dict[str, type[MedDiffFMError]] = {
    kind.kind: kind
    for kind in (
        errors.InputError,
        errors.OutputError,
        errors.ModelError,
        errors.DeviceError,
        errors.MemoryShortage,
        errors.DependencyError,
        ProtocolError,
    )
}


def error_fields(problem: MedDiffFMError) -> dict[str, Any]:
    """Fields of an ``error`` message."""
    return {
        "kind": problem.kind,
        "cause": problem.cause,
        "remedy": problem.remedy,
        "exit_code": problem.exit_code,
    }


def error_from(message: dict[str, Any]) -> MedDiffFMError:
    """The typed error behind an ``error`` message."""
    kind, cause, remedy = (str(message.get(name, "")) for name in ("kind", "cause", "remedy"))
    if kind in _ERRORS:
        return _ERRORS[kind](cause, remedy)
    return WorkerError(cause, remedy, kind)
