"""Atomic files: written under a temporary name, then renamed.

Temporary names say which process made them, so that what a killed one left behind is known as such and swept away by
the next run, while the temporary files of a process that is at work are left alone.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError, is_disk_full, reason_of

_OWNED = re.compile(r"by-([0-9a-f]{6})-([0-9]+)-[0-9a-f]{8}")
_FOREIGN_SECONDS = 24 * 3600.0
"""Age at which what a process of another computer, start or container made counts as left behind."""
_KEPT_LETTERS = 24
"""Of a file's name in its temporary name: enough for every suffix, and no name gets too long by it."""


@functools.cache
def _computer() -> str:
    """Tells apart where process numbers are given anew: computers that share a disk, their starts, and containers."""
    import hashlib
    import platform

    marks = [platform.node()]
    with contextlib.suppress(OSError):  # Linux alone
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        marks.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(" ".join(marks).encode()).hexdigest()[:6]


@contextlib.contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; what the block writes there becomes ``path`` at its end.

    The temporary name keeps the suffix, missing parent folders are created, and whatever goes wrong inside the block,
    the temporary file is removed and an older ``path`` stays as it was.

    Raises:
        OutputError: ``path`` exists, no permission, disk full, or any other failure of the file system.
    """
    path = Path(path)
    temporary = path.with_name(f".{owned_name()}.part.{path.name[-_KEPT_LETTERS:]}")
    try:
        check_output(path, overwrite=overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        check_output(path, overwrite=overwrite)  # another process may have written it in the meantime
        os.replace(temporary, path)
    except OSError as error:
        raise _explain(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def owned_name() -> str:
    """A new name that tells computer and process; part of the name of what :func:`sweep` may remove later."""
    import secrets

    return f"by-{_computer()}-{os.getpid()}-{secrets.token_hex(4)}"


def sweep(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove the temporary files and folders in ``folder`` whose process is dead; gives what was removed."""
    removed = []
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            owner = _OWNED.search(entry.name)
            with contextlib.suppress(OSError):
                if owner is None or not _is_left_behind(owner[1], int(owner[2]), entry.stat(follow_symlinks=False)):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
                removed.append(Path(entry.path))
    return removed


def _is_left_behind(computer: str, process: int, state: os.stat_result) -> bool:
    """Whether the owning process is gone; where that cannot be known, whether it is old."""
    if os.name != "posix" or computer != _computer():
        return time.time() - state.st_mtime > _FOREIGN_SECONDS
    if state.st_uid != os.getuid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


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
    if _OWNED.search(path.parent.name):  # a file on its way: the user knows the folder that it is to go to
        path = path.parent.with_name(path.name)
    if is_disk_full(error):
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
    return OutputError(f"'{path}' could not be written: {reason_of(error)}.", "Choose another folder or name.")
