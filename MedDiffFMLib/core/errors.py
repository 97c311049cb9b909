"""Typed errors for the user: cause, remedy, exit code."""

from __future__ import annotations

import errno
import os

from .library_messages import RECENT
from .visible_text import visible


class MedDiffFMError(Exception):
    """Base of all expected failures.

    Args:
        cause: one sentence that says what is wrong; it may quote foreign data, whose control characters are escaped.
        remedy: one sentence that says what to do about it.
    """

    kind = "failure"  # name in JSON output and in the worker's protocol
    exit_code = 3

    def __init__(self, cause: str, remedy: str = "") -> None:
        cause, remedy = visible(cause), visible(remedy)
        super().__init__(f"{cause} {remedy}".strip())
        self.cause = cause
        self.remedy = remedy


class InputError(MedDiffFMError):
    """The given volume, mask, parameter or path cannot be used."""

    kind = "input"
    exit_code = 2


class OutputError(MedDiffFMError):
    """A result cannot be written; nothing half-written is left behind."""

    kind = "output"
    exit_code = 2


class ModelError(MedDiffFMError):
    """Weights are missing, damaged, of another format or for another purpose."""

    kind = "model"
    exit_code = 3


class DeviceError(MedDiffFMError):
    """The chosen device is absent, or has too little memory even after every fallback."""

    kind = "device"
    exit_code = 3


class Cancelled(MedDiffFMError):
    """The user cancelled; not a failure."""

    kind = "cancelled"
    exit_code = 130

    def __init__(self) -> None:
        super().__init__("Cancelled.")


class MemoryShortage(DeviceError):
    """Main or graphics memory ran out, even after every fallback."""

    kind = "memory"


class DependencyError(MedDiffFMError):
    """A Python package is missing or damaged."""

    kind = "dependency"


def expected(problem: BaseException) -> MedDiffFMError | None:
    """The typed error behind an exception, or None where it is a defect of the program.

    Memory shortage, a full disk and missing packages arrive as foreign exceptions from Python, numpy and torch.
    """
    if isinstance(problem, MedDiffFMError):
        return problem
    if isinstance(problem, KeyboardInterrupt):
        return Cancelled()
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return _memory_shortage()
    if isinstance(problem, RuntimeError) and tells_of_memory(str(problem).lower()):
        return _memory_shortage()
    if isinstance(problem, OSError):
        return _system_failure(problem)
    if isinstance(problem, ImportError) and tells_of_memory(str(problem).lower()):
        return _memory_shortage()
    if isinstance(problem, ModuleNotFoundError) and not str(problem.name).startswith("MedDiffFMLib"):
        return DependencyError(
            f"The Python package {problem.name!r} is missing.", f"Install it: pip install {problem.name}"
        )
    return None


def is_disk_full(error: OSError) -> bool:
    """True for all ways in which a file cannot grow; numpy tells of it without a number."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return error.errno in numbers or (error.errno is None and "requested and" in str(error))


def reason_of(error: OSError) -> str:
    """The system's words for a failure, without number and path."""
    return "No space left on device" if is_disk_full(error) else error.strerror or str(error).rstrip(".")


def _system_failure(error: OSError) -> MedDiffFMError | None:
    """The typed error behind an unexpected failure of the file system."""
    if is_disk_full(error):
        return OutputError("The disk is full.", "Free some space; nothing incomplete was left behind.")
    where = f" '{error.filename}'" if error.filename else ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"There is no permission to use{where or ' a file'}.", "Choose a folder that you may use.")
    if error.errno == errno.ENAMETOOLONG:
        return OutputError(f"The name{where} is too long.", "Choose a shorter one, or another folder.")
    if error.errno in (errno.EIO, errno.ESTALE):
        return OutputError(f"The disk failed{where and f' at{where}'}: {reason_of(error)}.", "Check the disk.")
    if error.errno == errno.ENOMEM:
        return _memory_shortage()
    return None


def tells_of_memory(text: str) -> bool:
    """True for the words of torch's allocators and of the system."""
    # The last two are those of cuBLAS and cuDNN without room to work in.
    signs = (
        "out of memory",
        "can't allocate memory",
        "cannot allocate memory",
        "bad_alloc",
        "can't start new thread",
        "_status_alloc_failed",
        "unable to find an engine",
    )
    # oneDNN has no other words for it; where an operation is not supported it says "primitive descriptor".
    return any(sign in text for sign in signs) or text == "could not create a primitive"


def _memory_shortage() -> MemoryShortage:
    return MemoryShortage(
        "There is not enough memory for this volume.",
        "Close other programs, crop the volume, or choose the CPU or a coarser working spacing.",
    )


def log_defect(problem: BaseException) -> str:
    """Write the traceback of an unforeseen failure, and what libraries said before it, to a file of this user only.

    Returns:
        One line that names the file.
    """
    import tempfile
    import traceback

    summary = f"{type(problem).__name__}: {problem}".splitlines()[0]
    try:
        handle, path = tempfile.mkstemp(prefix="meddifffm-error-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            traceback.print_exception(type(problem), problem, problem.__traceback__, file=stream)
            stream.writelines(["\nMessages of libraries before:\n", *(f"{line}\n" for line in RECENT)])
    except OSError:  # the temporary folder may be full: the summary must do
        return summary
    return f"{summary} (details in {path})"
