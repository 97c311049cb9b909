"""SHA-256 of files."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in lower-case hex."""
    with open(path, "rb") as stream:
        return stream_sha256(stream)


def stream_sha256(stream: BinaryIO) -> str:
    """SHA-256 of an open file from its first byte to its last, in lower-case hex."""
    import hashlib

    stream.seek(0)
    digest = hashlib.sha256()
    for block in iter(lambda: stream.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()
