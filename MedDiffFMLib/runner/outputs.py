"""Output files: named and checked before computing, published together or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.atomic_files import owned_name, sweep
from ..core.csv_files import write_csv
from ..core.errors import InputError, OutputError, reason_of
from ..core.file_hash import file_sha256
from ..core.json_files import write_json
from ..imaging.formats.png import write_png
from ..imaging.image_files import stem_of
from ..imaging.io import METAIMAGE_SUFFIXES, NIFTI_SUFFIXES, WRITABLE_SUFFIXES, write_volume
from ..imaging.volume import Volume
from ..tasks.base import TaskResult
from ..tasks.output_kinds import OutputKind
from ..tasks.registry import TASKS
from .report import published

CALCULATED = "Calculated from a CT: not an acquired radiograph."
_NOT_WRITTEN = (
    ".nhdr", ".dcm", ".ima", ".img", ".hdr", ".mgh", ".mgz", ".vtk", ".vti", ".zip", ".gz", ".npy", ".npz", ".h5",
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".csv", ".txt", ".json", ".pdf", ".safetensors",
)  # fmt: skip
"""Suffixes of names that are meant as files, though not of one that is written; any other may be that of a folder."""


@dataclass(frozen=True)
class OutputPlan:
    """Names of the outputs: ``base`` alone is the main result, ``base_<name>`` the others, ``base.json`` the report.

    Of more main results, ``<main>_<which>``, the files are ``base_<which>``.
    """

    folder: Path
    base: str
    suffix: str

    @property
    def report(self) -> Path:
        return self.folder / f"{self.base}.json"

    def file(self, task: str, name: str) -> Path:
        """Path of the output called ``name``."""
        declared = TASKS[task]
        suffix = declared.output(name).kind.suffix or self.suffix
        main = declared.outputs[0].name
        further = name.removeprefix(f"{main}_")
        return self.folder / f"{self.base if name == main else f'{self.base}_{further}'}{suffix}"

    def recorded(self, task: str, name: str, record: dict[str, Any]) -> Path:
        """Path of an output of a report; a private report does not name it."""
        if "file" in record:
            return self.folder / record["file"]
        return self.file(task, name)

    def expected(self, task: str) -> list[Path]:
        """Every file that the task is known to write."""
        return [*(self.file(task, output.name) for output in TASKS[task].outputs), self.report]


def plan_outputs(task: str, source: Path | None, output: Path | None, seed: int = 0) -> OutputPlan:
    """Plan of where the results of ``source`` go.

    Args:
        source: the input; None where there is none, then the seed tells results apart.
        output: a folder, or a file name for the main result; None for the current folder.

    Raises:
        InputError: the output is a file of a format that is not written.
    """
    target = output or Path(".")
    for known in WRITABLE_SUFFIXES:
        if target.name.lower().endswith(known) and not target.is_dir():
            return OutputPlan(target.parent, target.name[: -len(known)], target.name[-len(known) :])
    if target.suffix.lower() in _NOT_WRITTEN and not target.is_dir():
        raise InputError(
            f"Files of type {target.suffix} cannot be written ({target}).",
            "Use .nrrd, .nii, .nii.gz, .mha, or a folder.",
        )
    base = f"{task}_seed{seed}" if source is None else f"{stem_of(source)}_{task}"
    return OutputPlan(target, base, _suffix_like(source))


def _suffix_like(source: Path | None) -> str:
    """Format of the results of an input."""
    name = "" if source is None else source.name.lower()
    if name.endswith(METAIMAGE_SUFFIXES):
        return ".mha"
    return ".nii.gz" if name.endswith(NIFTI_SUFFIXES) else ".nrrd"


def check_outputs(plan: OutputPlan, task: str, overwrite: bool) -> None:
    """Refuse before anything is computed what could not be written afterwards; makes the folder.

    Raises:
        OutputError: files exist, or the folder cannot be made or written to.
    """
    present = [path for path in plan.expected(task) if os.path.lexists(path)]
    if present and not overwrite:
        more = f" and {len(present) - 1} more exist" if len(present) > 1 else " exists"
        raise OutputError(f"'{present[0]}'{more} already.", "Choose another output, or give --overwrite.")
    blocked = [path for path in present if path.is_dir()]
    if blocked:
        raise OutputError(f"'{blocked[0]}' is a folder.", "Choose another output.")
    make_folder(plan.folder)


def make_folder(folder: Path) -> None:
    """Make an output folder, sweep up what dead runs left in it, and try whether files can be made there.

    Raises:
        OutputError: it is a file, or there is no permission or space.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise OutputError(
            f"The output folder '{folder}' cannot be used: {reason_of(problem)}.",
            "Choose a folder where you may write.",
        ) from None


def publish(
    plan: OutputPlan,
    volume: Volume | None,
    result: TaskResult,
    report: dict[str, Any],
    overwrite: bool,
    private: bool = False,
) -> dict[str, Any]:
    """Write every output, all or none; the report comes last, so where it exists the case is done.

    Args:
        volume: the input, on whose grid the results lie unless the result says where.
        private: the report that is written names no file; the one that is given does.

    Returns:
        The finished report.
    """
    staging = plan.folder / f".{owned_name()}.results"
    try:
        staging.mkdir()
        finished = _stage(staging, plan, volume, result, report)
        report["outputs"] = {name: _file_record(staging / path.name) for name, path in finished.items()}
        write_json(published(report, plan.folder, private), staging / plan.report.name)
        _move(staging, [*finished.values(), plan.report], overwrite)
    except OSError as problem:
        raise OutputError(
            f"The results cannot be written to '{plan.folder}': {reason_of(problem)}.",
            "Free some space or choose another folder; nothing incomplete was left behind.",
        ) from problem
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return report


def _file_record(path: Path) -> dict[str, Any]:
    return {"file": path.name, "sha256": file_sha256(path), "bytes": path.stat().st_size}


def _stage(
    staging: Path, plan: OutputPlan, volume: Volume | None, result: TaskResult, report: dict[str, Any]
) -> dict[str, Path]:
    """Write everything into the staging folder; output name -> final path."""
    task = report["settings"]["task"]
    names = [*result.volumes, *result.tables, *result.texts]
    finished = {name: plan.file(task, name) for name in names}
    pictures: dict[str, Path] = {}
    for name, path in finished.items():
        staged = staging / path.name
        if name in result.volumes:
            output = replace(located(name, volume, result), synthetic=report["synthetic"])
            write_volume(output, staged, mask=output.voxels.dtype == bool)
            if TASKS[task].output(name).kind is OutputKind.XRAY:
                pictures[f"{name}_png"] = _write_picture(output, staged, _window(name, result))
        elif name in result.tables:
            write_csv(result.tables[name], TASKS[task].output(name).columns, staged)
        else:
            staged.write_text(result.texts[name], encoding="utf-8")
    return {**finished, **{name: plan.folder / path.name for name, path in pictures.items()}}


def _window(name: str, result: TaskResult) -> tuple[float, float]:
    """Values of a radiograph to show as black and as white: what the task says, else the lowest and the highest."""
    voxels = result.volumes[name]
    low, high = result.facts.get("windows", {}).get(name, (voxels.min(), voxels.max()))
    return float(low), float(high)


def _write_picture(picture: Volume, beside: Path, window: tuple[float, float]) -> Path:
    """A radiograph as PNG beside its volume, for programs that know no volumes."""
    name = next(beside.name.removesuffix(suffix) for suffix in WRITABLE_SUFFIXES if beside.name.endswith(suffix))
    path = beside.with_name(f"{name}.png")
    write_png(path, picture.voxels[0], window, picture.spacing[0], CALCULATED)
    return path


def located(name: str, volume: Volume | None, result: TaskResult) -> Volume:
    """A volume of a result where it lies.

    Args:
        volume: the input; None for a task without one, whose result says where it lies.
    """
    voxels = result.volumes[name]
    if name in result.ijk_to_ras:
        return Volume(voxels, result.ijk_to_ras[name], beam_source=_beam_source(name, result))
    assert volume is not None  # a task without a CT says where its result lies
    return volume.with_voxels(voxels)


def _beam_source(name: str, result: TaskResult) -> tuple[float, ...] | None:
    """Where the source of a radiograph stands; empty for parallel rays, None for all else."""
    view = result.facts.get("views", {}).get(name)
    if not isinstance(view, dict) or "source_ras_mm" not in view:
        return None
    return tuple(view["source_ras_mm"] or ())


def _move(staging: Path, paths: list[Path], overwrite: bool) -> None:
    """Rename the staged files to their places; if one fails, everything is as it was before.

    Each place holds a whole file at any moment, the old one or the new one, and between the first and the last no
    report vouches for them.
    """
    before = staging / "before"
    before.mkdir()
    moved: list[Path] = []
    try:
        if overwrite:
            for path in paths:
                _keep(path, before)
            paths[-1].unlink(missing_ok=True)  # an old report must not vouch for new files
        for path in paths:
            if not overwrite and os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, "it exists already")
            os.replace(staging / path.name, path)
            moved.append(path)
    except BaseException as problem:
        for path in paths:
            _put_back(path, before, path in moved)
        if isinstance(problem, OSError):
            raise OutputError(
                f"The results cannot be put in place: {reason_of(problem)}.", "Choose another output folder."
            ) from problem
        raise


def _keep(path: Path, before: Path) -> None:
    """A second name for a file that is to be replaced; a copy where the file system has no links."""
    if not path.exists():
        return
    try:
        os.link(path, before / path.name)
    except OSError:
        shutil.copy2(path, before / path.name)


def _put_back(path: Path, before: Path, moved: bool) -> None:
    """The file that was there, or none."""
    with contextlib.suppress(OSError):
        if (before / path.name).exists():
            os.replace(before / path.name, path)
        elif moved:
            path.unlink(missing_ok=True)
