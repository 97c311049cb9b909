"""Series in DICOM folders and on media with a DICOMDIR, and the choice of one of them."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..imaging.archives import unpacked
from ..imaging.formats.common import damaged, parsing
from ..imaging.formats.dicom import dataset_of, dicom_files, has_mark, is_dicom_file
from ..imaging.modality import MEMBERS
from ..imaging.source import Reading
from ..imaging.volume import MIN_SLICES

DIRECTORY = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR."""
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "Modality", "PatientID", "PatientName", "StudyDate", "Rows", "NumberOfFrames",
]  # fmt: skip
_NAMED = 12
"""Series in a sentence, at most."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class Series:
    """One series as a table shows it.

    Attributes:
        number, description, modality, date: as the study has them; empty where it does not say.
        patients: different patients that its images name; more than one is an error of whoever made it.
        images: images in it, 0 for reports and plans.
        files: where it lies on the disk; none for a series of an archive.
        study: UID of its study.
    """

    uid: str
    study: str = ""
    number: str = ""
    description: str = ""
    modality: str = ""
    date: str = ""
    patients: tuple[str, ...] = ()
    images: int = 0
    files: tuple[Path, ...] = ()

    @property
    def words(self) -> str:
        """For a sentence."""
        count = "no images" if not self.images else "1 image" if self.images == 1 else f"{self.images} images"
        return f"{self.number or '?'} '{self.description or 'without a name'}' ({self.modality or '?'}, {count})"

    def is_called(self, wanted: str) -> bool:
        """Whether a user means it, by number or UID."""
        return wanted == self.uid or (
            wanted.isdecimal() and self.number.isdecimal() and int(wanted) == int(self.number)
        )


HEADING = ["number", "modality", "images", "description", "date", "series"]


def table(series: Sequence[Series]) -> list[list[str]]:
    """Rows for a screen, with a heading."""
    rows = [[s.number, s.modality, str(s.images), s.description, s.date, s.uid] for s in series]
    return [HEADING, *rows]


def find_series(path: Path) -> list[Series]:
    """The series in a folder and below it, or those that a DICOMDIR lists, in order of their numbers.

    Raises:
        InputError: nothing there, a damaged file, or files that a DICOMDIR lists and that are gone.
    """
    if is_directory_record(path):
        files: Iterable[Path] = _listed(path)
    elif path.is_dir():
        files = _below(path)
    else:
        raise InputError(f"'{path}' is no DICOM folder and no DICOMDIR.", "Give the folder that holds the series.")
    found = _grouped(files)
    if not found:
        raise InputError(f"'{path}' holds no DICOM series.", "Give the folder that holds the series.")
    return sorted_series(found)


def sorted_series(found: Iterable[Series]) -> list[Series]:
    """In order of the numbers."""
    return sorted(found, key=lambda s: (int(s.number) if s.number.isdecimal() else 1 << 40, s.description, s.uid))


@contextlib.contextmanager
def source_files(path: Path | None) -> Iterator[list[Path]]:
    """The DICOM files that a volume is read from, while the block runs; none where it has another format.

    Args:
        path: as for ``read_volume``: folder of one series, ZIP archive of it, or one file of a series.
    """
    if path is not None and path.name.lower().endswith(".zip"):
        with unpacked(path, Reading(path)) as folder:
            yield dicom_files(folder)
    elif path is None or not path.exists() or (path.is_file() and not is_dicom_file(path)):
        yield []
    else:
        yield dicom_files(path)


def is_directory_record(path: Path) -> bool:
    """Whether a file is a DICOMDIR, whatever it is called."""
    import pydicom

    if not path.is_file() or not has_mark(path):
        return False
    with parsing(lambda error: damaged(path.name, "DICOM", "its header cannot be read")):
        return str(pydicom.filereader.read_file_meta_info(path).get("MediaStorageSOPClassUID")) == DIRECTORY


def _below(folder: Path) -> list[Path]:
    """DICOM files at any depth but a DICOMDIR; what runs at work have not finished yet is hidden and stays out."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(place) / name for name in sorted(names) if not name.startswith(".") and name != "DICOMDIR"]
        found += [path for path in paths if path.is_file() and is_dicom_file(path)]
    return found


def _listed(path: Path) -> list[Path]:
    """The files of a DICOMDIR."""
    with parsing(lambda error: damaged(path.name, "DICOMDIR", "its records cannot be read")):
        records = dataset_of(path).get("DirectoryRecordSequence") or []
        names = [record.ReferencedFileID for record in records if record.get("ReferencedFileID")]
        files = [path.parent.joinpath(*([name] if isinstance(name, str) else name)) for name in names]
    inside = path.parent.resolve()
    if any(not file.resolve().is_relative_to(inside) for file in files):
        raise damaged(path.name, "DICOMDIR", "it leads out of its folder")
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"'{path}' lists {len(files)} files, of which {len(missing)} are not there, the first is '{missing[0]}'.",
            "Copy the whole medium, or give the folder with the images instead of the DICOMDIR.",
        )
    return files


def _grouped(files: Iterable[Path]) -> list[Series]:
    grouped: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    for file in files:
        header = _header(file)
        if header.get("SeriesInstanceUID"):
            grouped[str(header.SeriesInstanceUID)].append((file, header))
    return [_series(uid, members) for uid, members in grouped.items()]


def _header(file: Path) -> Any:
    """Header elements that tell series apart; empty for a file that only looks like bare DICOM data."""
    try:
        header = dataset_of(file, stop_before_pixels=True, specific_tags=_TAGS)
        header.decode()
        return header
    except InputError:  # deflated
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None or has_mark(file):
            raise damaged(file.name, "DICOM", "its header cannot be read") from error
        return {}


def _series(uid: str, members: list[tuple[Path, Any]]) -> Series:
    first = members[0][1]
    frames = [int(header.get("NumberOfFrames") or 1) if "Rows" in header else 0 for _, header in members]
    return Series(
        uid=uid,
        study=_text(first, "StudyInstanceUID"),
        number=_text(first, "SeriesNumber"),
        description=_text(first, "SeriesDescription"),
        modality=_text(first, "Modality"),
        date=_text(first, "StudyDate"),
        patients=tuple(sorted({patient_of(header) for _, header in members} - {""})),
        images=sum(frames),
        files=tuple(file for file, _ in members),
    )


def patient_of(header: Any) -> str:
    """Who a header is of: the ID, else the name; empty where it says nothing."""
    return _text(header, "PatientID") or _text(header, "PatientName")


def _text(header: Any, name: str) -> str:
    value = header.get(name)
    return "" if value is None else str(value).strip()


def choose_series(
    name: str, found: Sequence[Series], wanted: str | None, modality: str, note: Note = lambda _: None
) -> Series:
    """The series that is meant.

    Args:
        name: of the folder or archive, for sentences.
        wanted: number or UID; None for the only one that can be a volume of the modality.
        note: is told of a choice among several.

    Raises:
        InputError: none or several fit (all of them are named), or it mixes patients.
    """
    if wanted is not None:
        fitting = [series for series in found if series.is_called(wanted)]
        if not fitting:
            raise InputError(
                f"'{name}' has no series {wanted!r:.80}; it holds {_named(found)}.", "Choose one of these."
            )
    else:
        fitting = [
            s for s in found if s.images >= MIN_SLICES and s.modality in MEMBERS.get(modality, (modality,))
        ] or list(found)
    if len(fitting) > 1:
        remedy = f"Choose one: --series {fitting[0].number or fitting[0].uid}, or by UID, see `meddifffm series`."
        raise InputError(f"'{name}' holds {len(fitting)} series that could be meant: {_named(fitting)}.", remedy)
    series = fitting[0]
    if len(series.patients) > 1:
        patients = " and ".join(map(repr, series.patients[:3]))
        raise InputError(
            f"Series {series.words} in '{name}' mixes images of several patients: {patients}.",
            "Export each patient's series again; nothing is made out of a mixture.",
        )
    if wanted is None and len(found) > 1:
        note(f"{name}: series {series.words} out of {len(found)} was taken.")
    return series


def _named(series: Sequence[Series]) -> str:
    more = f"; and {len(series) - _NAMED} more" if len(series) > _NAMED else ""
    return "; ".join(s.words for s in series[:_NAMED]) + more


def place_of(path: Path, series: Series, alone: bool) -> Path:
    """Path that a reader of volumes takes for the series: the folder where it is alone, else one of its files.

    Raises:
        InputError: it lies in several folders, among others.
    """
    if alone and path.is_dir():
        return path
    if len({file.parent for file in series.files}) > 1:
        remedy = f"Copy it out first: meddifffm series '{path}' --series {series.uid} -o FOLDER."
        raise InputError(f"Series {series.words} lies in several folders of '{path}'.", remedy)
    return series.files[0]
