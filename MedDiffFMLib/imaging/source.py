"""Source of a volume: exactly the files that its voxels were read from, with the SHA-256 of what was read."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..core.errors import InputError
from ..core.file_hash import stream_sha256


@dataclass(frozen=True)
class Source:
    """The files of one volume.

    Attributes:
        files: (name, SHA-256) of each in the order in which they were read; a name is relative to the folder that was
            given, or to that of the file, and has slashes.

    Raises:
        ValueError: no file at all.
    """

    files: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("nothing was read")

    @property
    def lines(self) -> list[str]:
        """Lines as ``sha256sum`` prints them of the files."""
        return [f"{digest}  {name}" for name, digest in self.files]

    @property
    def sha256(self) -> str:
        """Of one file what ``sha256sum`` prints; of several the SHA-256 of :attr:`lines`."""
        if len(self.files) == 1:
            return self.files[0][1]
        return hashlib.sha256(
            "".join(f"{line}\n" for line in self.lines).encode("utf-8", "surrogateescape")
        ).hexdigest()


class Reading:
    """Opens the files of one volume, and keeps what was read of them.

    Args:
        path: the file or folder that is read.
    """

    def __init__(self, path: Path) -> None:
        self._base = path if path.is_dir() else path.parent
        self._opened: list[str] = []
        self._digests: dict[str, str] = {}
        self._states: dict[str, tuple[int, ...]] = {}

    @contextlib.contextmanager
    def look(self, path: Path) -> Iterator[BinaryIO]:
        """Open a file for its header only: it is no part of the source unless :meth:`open` reads it, too.

        Raises:
            InputError: it changed since it was opened first.
        """
        with path.open("rb") as file:
            self._refuse_change(path, file)
            yield file

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[BinaryIO]:
        """Open a file that the volume is made of; its hash is that of the same open file.

        Raises:
            InputError: it changed since it was opened first.
        """
        name = self._name(path)
        with self.look(path) as file:
            self._opened.append(name)
            yield file
            self._digests[name] = stream_sha256(file)
            self._refuse_change(path, file)

    def source(self) -> Source:
        """Everything that was opened so far."""
        return Source(tuple((name, self._digests[name]) for name in self._opened))

    def _name(self, path: Path) -> str:
        try:
            return Path(os.path.relpath(path, self._base)).as_posix()
        except ValueError:  # detached voxels on another drive
            return path.name

    def _refuse_change(self, path: Path, file: Any) -> None:
        state = os.fstat(file.fileno())
        seen = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if self._states.setdefault(self._name(path), seen) != seen:
            raise InputError(f"'{path.name}' changed while it was read.", "Wait until it is complete, and try again.")
