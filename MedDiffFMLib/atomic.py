"""Files that are either complete or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError


@contextlib.contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; what the block writes there becomes ``path`` at its end.

    The temporary name keeps the suffix, missing parent folders are created, and whatever goes wrong inside the block,
    the temporary file is removed and an older ``path`` stays as it was.

    Raises:
        OutputError: ``path`` exists, no permission, disk full, or any other failure of the file system.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(4)}.part.{path.name}")
    try:
        check_output(path, overwrite=overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        check_output(path, overwrite=overwrite)  # somebody else may have written it in the meantime
        os.replace(temporary, path)
    except OSError as error:
        raise _explain(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_output(path: str | Path, *, overwrite: bool = False) -> None:
    """Refuse an output path early, before minutes of computing, as far as can be known without writing.

    Raises:
        OutputError: ``path`` is a folder, or exists and ``overwrite`` is off.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder, not a file.", "Give a file name.")
    if not overwrite and os.path.lexists(path):
        raise OutputError(f"'{path}' exists already.", "Choose another name, or allow overwriting (--overwrite).")


def _explain(path: Path, error: OSError) -> OutputError:
    """The operating system's error as a sentence with a remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"The disk is full: '{path.name}' could not be written to '{path.parent}'.",
            "Free some space or choose another folder; nothing incomplete was left behind.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(
            f"No permission to write '{path.name}' to '{path.parent}'.",
            "Choose a folder that you may write to.",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return OutputError(
            f"'{path.parent}' is not a folder, so '{path.name}' cannot be written there.", "Choose another folder."
        )
    reason = error.strerror or str(error)
    return OutputError(f"'{path}' could not be written: {reason}.", "Choose another folder or name.")
