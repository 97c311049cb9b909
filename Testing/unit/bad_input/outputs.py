"""Results and their place."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest

from MedDiffFMLib.core.errors import OutputError
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.runner.pages import PageFiles
from Testing.unit.phantoms import body

from .rows import case


@case(
    "output exists",
    "'{folder}/out.nrrd' exists already. Choose another name, or allow overwriting (--overwrite).",
    OutputError,
)
def _exists(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder / "out.nrrd").write_text("an older result")
    write_volume(body(), folder / "out.nrrd")


@case(
    "output folder is a file",
    "'{folder}/notes.txt' is not a folder, so 'out.nrrd' cannot be written there. Choose another folder.",
    OutputError,
)
def _not_a_folder(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder / "notes.txt").write_text("a file")
    write_volume(body(), folder / "notes.txt" / "out.nrrd")


@case(
    "no write permission",
    "No permission to write 'out.nrrd' to '{folder}'. Choose a folder that you may write to.",
    OutputError,
)
def _permission(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # tests may run as root, whom no permission bit stops
        raise PermissionError(errno.EACCES, "Permission denied")

    patch.setattr(Path, "open", refuse)
    write_volume(body(), folder / "out.nrrd")


class _SmallDisk(io.FileIO):
    """A file on a disk with room for 10 kB."""

    def write(self, data) -> int:
        if self.tell() + len(data) > 10_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@case(
    "disk full",
    "The disk is full: 'out.nrrd' could not be written to '{folder}'. "
    "Free some space or choose another folder; nothing incomplete was left behind.",
    OutputError,
)
def _disk_full(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "open", lambda self, mode: _SmallDisk(self, mode.replace("b", "")))
    write_volume(body(), folder / "out.nrrd")


@case(
    "report on one page into a picture",
    "'page.png' is no .pdf file. "
    "Give --pdf a name that ends with .pdf, or put --pdf last to have it beside the result.",
)
def _page_as_picture(_: Path, __: pytest.MonkeyPatch) -> None:
    PageFiles(pdf=Path("page.png"))
