"""Cases in folders, files and lists; what is left out is reported."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..core.errors import InputError, reason_of
from ..imaging.formats.dicom import is_dicom_file
from ..imaging.image_files import VOLUME_SUFFIXES, stem_of
from ..imaging.io import files_of
from ..tasks.inputs import NONE, Inputs
from ..tasks.registry import TASKS
from .case_files import CaseFiles
from .earlier_results import results_in

LIST_SUFFIXES = (".txt", ".csv", ".tsv")
_NAMED = 5
"""File names in a note, at most."""
_DETACHED = (".nhdr", ".mhd")

Note = Callable[[str], None]


def find_cases(
    sources: Sequence[Path],
    task: str,
    folders: Mapping[str, Path] | None = None,
    texts: Mapping[str, str] | None = None,
    label: str | None = None,
    note: Note = lambda _: None,
) -> list[CaseFiles]:
    """The cases in folders, files and lists.

    Args:
        sources: folders of volumes, of DICOM folders or both; single volumes; .txt with one path a line; .csv with the
            columns input, mask, label, anatomy and the task's further scans and texts. Paths in it are relative to it.
        folders: mask, anatomy or further scan -> folder that holds a file of the same name for every case.
        texts: for every case that has none of its own.
        label: of the mask, likewise.
        note: receives what was left out, and why.

    Raises:
        InputError: nothing found, no name or one twice, a label map missing, or a task that works on no CT.
    """
    inputs = TASKS[task].inputs
    if inputs.volume is NONE:
        inputs.check(task, ["volume"])
    cases = [case for source in sources for case in _cases_of(source, inputs, note)]
    partners = {name: _by_name(folder) for name, folder in (folders or {}).items()}
    cases = [_completed(case, folders or {}, partners, texts or {}) for case in cases]
    cases = [case if case.label else replace(case, label=label) for case in cases]
    if not cases:
        places = ", ".join(map(str, sources))
        raise InputError(
            f"No volumes in {places}.",
            f"Give {', '.join(VOLUME_SUFFIXES)} files or DICOM folders; results of earlier runs are cases only where "
            "a list names them.",
        )
    _refuse_unclear_names(cases)
    for case in cases:
        inputs.check(task, case.names)
    return cases


def _refuse_unclear_names(cases: Sequence[CaseFiles]) -> None:
    """Each case needs a name of its own, also on a disk that does not tell capitals from small letters."""
    names = [case.name for case in cases]
    if "" in names:
        nameless = cases[names.index("")].input
        raise InputError(f"'{nameless}' has no name that results could be called after.", "Name a file or a folder.")
    counts = Counter(name.casefold() for name in names)
    twice = sorted(name for name in names if counts[name.casefold()] > 1)
    if twice:
        raise InputError(f"Several cases are called {twice[0]!r}.", "Rename them, or run them into different folders.")


def _cases_of(source: Path, inputs: Inputs, note: Note) -> list[CaseFiles]:
    try:
        if source.is_dir():
            return [CaseFiles(path) for path in _in_folder(source, note)]
        if source.suffix.lower() == ".txt":
            lines = [_unquoted(line) for line in _text_of(source).splitlines()]
            return [CaseFiles(source.parent / line) for line in lines if line]
        if source.suffix.lower() in LIST_SUFFIXES:
            return _cases_of_table(source, inputs, note)
    except OSError as problem:
        raise InputError(f"'{source}' cannot be read: {reason_of(problem)}.", "Check the path.") from None
    return [CaseFiles(source)]


# Folders


def _in_folder(folder: Path, note: Note) -> list[Path]:
    """The volumes in a folder: files, folders with DICOM, and the folder itself where DICOM files lie in it."""
    results = results_in(folder)
    visible: list[Path] = []
    hidden: list[Path] = []
    for path in sorted(folder.iterdir()):
        (hidden if path.name.startswith(".") else visible).append(path)
    files = [path for path in visible if path.is_file() and path.name not in results]
    volumes = [path for path in files if _is_volume(path)]
    detached = {file for path in volumes if path.name.lower().endswith(_DETACHED) for file in _voxel_files(path)}
    volumes = [path for path in volumes if path not in detached]
    others = [path for path in files if path not in volumes and path not in detached]
    loose = [path for path in others if is_dicom_file(path)]
    folders = [path for path in visible if path.is_dir()]
    series = [path for path in folders if _holds_dicom(path)]
    left_out = [path for path in (*others, *folders) if path not in loose and path not in series]
    _tell(note, folder, "no volumes", left_out)
    _tell(note, folder, "hidden", [path for path in hidden if _is_volume(path) and not path.name.startswith("._")])
    _tell(note, folder, "results of earlier runs", [path for path in visible if path.name in results])
    return sorted([*volumes, *series, *([folder] if loose else [])])


def _is_volume(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(VOLUME_SUFFIXES) and not name.endswith(".seg.nrrd") and ".part." not in name


def _voxel_files(header: Path) -> list[Path]:
    """The files beside a header that hold its voxels; a damaged header is refused when its case is read."""
    try:
        return files_of(header)[1:]
    except InputError:
        return []


def _holds_dicom(folder: Path) -> bool:
    return any(path.is_file() and is_dicom_file(path) for path in folder.rglob("*"))


def _tell(note: Note, folder: Path, why: str, paths: Sequence[Path]) -> None:
    if paths:
        names = [path.name for path in paths[:_NAMED]]
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        note(f"Left out of {folder} ({why}): {', '.join(names)}{more}.")


# Lists


def _text_of(source: Path) -> str:
    """A list as text, with or without the mark that Windows puts before it.

    Raises:
        InputError: no text, or of another encoding.
    """
    content = source.read_bytes()
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError(f"'{source}' is no text.", "Save the list as plain text (UTF-8).")
    return text


def _unquoted(text: str) -> str:
    """A path without the quotes that a shell or Explorer puts around it."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text


def _cases_of_table(source: Path, inputs: Inputs, note: Note) -> list[CaseFiles]:
    """Rows of a table with a heading; columns are separated by what the heading has most of."""
    text = _text_of(source)
    first, _, rest = text.partition("\n")
    if first.lower().startswith("sep="):  # as Excel marks its separator
        text, first = rest, rest.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        heading, *rows = list(csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)) or [[]]
    except csv.Error:
        raise InputError(f"'{source}' is no table.", "Save it as CSV (UTF-8).") from None
    columns = [name.strip().lower() for name in heading]
    known = ["input", *inputs.modalities, *_label_column(inputs), *(text.name for text in inputs.texts)]
    unknown = [name for name in columns if name and name not in known]
    if unknown:
        note(f"Columns of {source.name} that are not used: {', '.join(unknown)}.")
    cases = []
    for number, cells in enumerate(rows, start=2):
        if len(cells) > len(columns):
            raise InputError(f"Row {number} of '{source}' has more cells than columns.", "Put quotes around the path.")
        row = {name: _unquoted(value) for name, value in zip(columns, cells, strict=False)}
        if any(row.values()):
            cases.append(_case_from_row(source, row, inputs))
    return cases


def _case_from_row(source: Path, row: Mapping[str, str], inputs: Inputs) -> CaseFiles:
    if not row.get("input"):
        raise InputError(f"'{source}' has a row without input.", "Give the columns input, mask and anatomy.")
    paths = {name: source.parent / row[name] for name in inputs.modalities if row.get(name)}
    texts = {text.name: row[text.name] for text in inputs.texts if row.get(text.name)}
    label = (row.get("label") or None) if _label_column(inputs) else None
    return _with_files(CaseFiles(source.parent / row["input"], texts=texts, label=label), paths)


def _label_column(inputs: Inputs) -> list[str]:
    return [] if inputs.mask is NONE else ["label"]


# Partners


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """Volumes, label maps and DICOM folders by the name of their case.

    Raises:
        InputError: no folder.
    """
    by_name: dict[str, list[Path]] = {}
    try:
        paths: Iterable[Path] = sorted(folder.iterdir())
    except OSError as problem:
        raise InputError(f"'{folder}' cannot be read: {reason_of(problem)}.", "Give a folder.") from None
    for path in paths:
        if not path.name.startswith(".") and (path.is_dir() or path.name.lower().endswith((*VOLUME_SUFFIXES, ".dcm"))):
            by_name.setdefault(stem_of(path), []).append(path)
    return by_name


def _completed(
    case: CaseFiles,
    folders: Mapping[str, Path],
    partners: Mapping[str, dict[str, list[Path]]],
    texts: Mapping[str, str],
) -> CaseFiles:
    """The case with files of its name from folders, and texts for all, where it has none of its own."""
    missing = [name for name in partners if name not in case.paths]
    partner_paths = {name: _partner(case, folders[name], partners[name]) for name in missing}
    return replace(_with_files(case, partner_paths), texts={**texts, **case.texts})


def _with_files(case: CaseFiles, paths: Mapping[str, Path]) -> CaseFiles:
    scans = {name: path for name, path in paths.items() if name not in ("mask", "anatomy")}
    mask, anatomy = paths.get("mask", case.mask), paths.get("anatomy", case.anatomy)
    return replace(case, mask=mask, anatomy=anatomy, scans={**case.scans, **scans})


def _partner(case: CaseFiles, folder: Path, by_name: Mapping[str, list[Path]]) -> Path:
    """The file that belongs to a case."""
    fitting = by_name.get(case.name, [])
    if not fitting:
        raise InputError(f"'{folder}' has no file for {case.name!r}.", f"Add {case.name}.nrrd, or use a .csv list.")
    if len(fitting) > 1:
        names = ", ".join(path.name for path in fitting)
        raise InputError(f"'{folder}' has several files for {case.name!r}: {names}.", "Keep one, or use a .csv list.")
    return fitting[0]
