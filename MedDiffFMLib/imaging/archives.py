"""ZIP archives that hold a DICOM series, as archives and portals hand them out."""

from __future__ import annotations

import contextlib
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..core.atomic_files import owned_name, sweep
from ..core.errors import InputError
from .formats.common import MAX_COMPRESSION, damaged, parsing, truncated
from .source import Reading

_PORTION = 1 << 20
_MOST_FILES = 100_000


@contextlib.contextmanager
def unpacked(path: Path, reading: Reading) -> Iterator[Path]:
    """Unpack an archive into a folder that is called as it and gone after the block.

    Only the members' own names are used, each in a folder of its own, so none can lead elsewhere. Hidden files and
    what macOS puts beside them are left out.

    Args:
        reading: opens the archive.

    Raises:
        InputError: damaged, encrypted, or larger than its file can hold.
    """
    sweep(tempfile.gettempdir())
    with (
        reading.open(path) as file,
        parsing(lambda error: damaged(path.name, "ZIP", "it is truncated, damaged, or packed in an unknown way")),
        zipfile.ZipFile(file) as archive,
        tempfile.TemporaryDirectory(prefix=f"meddifffm-{owned_name()}-") as temporary,
    ):
        folder = Path(temporary) / (path.stem or "archive")
        for number, member in enumerate(_members(path, archive)):
            place = folder / f"{number:06d}"
            place.mkdir(parents=True)
            name = re.sub(r"[^\w.-]", "_", PurePosixPath(member.filename).name)[-100:]
            with archive.open(member) as packed, (place / name).open("xb") as target:
                while portion := packed.read(_PORTION):
                    target.write(portion)
        folder.mkdir(exist_ok=True)
        yield folder


def _members(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files that may be images."""
    members = [member for member in archive.infolist() if not member.is_dir() and not _is_hidden(member.filename)]
    if any(member.flag_bits & 1 for member in members):
        raise InputError(f"'{path.name}' is encrypted.", "Unpack it with its password, and give the folder.")
    promised, held = sum(member.file_size for member in members), path.stat().st_size
    if promised > held * MAX_COMPRESSION["gzip"] or len(members) > _MOST_FILES:
        raise truncated(path.name, "it promises more than its file can hold")
    return members


def _is_hidden(name: str) -> bool:
    parts = [part for part in PurePosixPath(name).parts if part not in (".", "..")]
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
