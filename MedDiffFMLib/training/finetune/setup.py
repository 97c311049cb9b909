"""Setup of a fine-tuning run: settings and folder, dataset check, prepared cases."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...core.atomic_files import atomic_path
from ...core.errors import InputError
from ...core.file_lock import LOCK_SECONDS, locked
from ...core.json_files import write_json
from ...core.progress import CancelToken, ProgressCallback
from ...core.safe_load import read_json
from ...datasets.check import Needs, check_dataset, read_entries
from ...datasets.check_report import CheckReport
from ...datasets.datalist import Entry
from ...imaging.io import files_of
from ...models.catalogue import check_name, resolve
from ...models.checkpoint import check_sha256, read_header
from ...networks.registry import network_config
from ...runner.outputs import make_folder
from ..pretrain.run import check_same_run
from .adapters import Adapter
from .cases import data_sha256, open_control_cases, prepare_cases
from .config import FinetuneConfig
from .interface import ControlTask
from .progress_log import STOP_FILE, Progress
from .registry import FinetuneTask, finetune_task

BEST = "best.safetensors"
WRITER_LOCK_FILE = "writing.lock"
"""Held by the process that writes; ``running.lock`` is that of a run that a panel started."""


@dataclass
class Run:
    """A run that passed the checks that cost no time.

    Attributes:
        prior: ``name`` and ``sha256``.
        id: names the run in the catalogue, so that it may replace its own model only; empty until it is claimed.
        first: whether this is the process that writes files.
    """

    folder: Path
    data: Path
    cache: Path
    config: FinetuneConfig
    row: FinetuneTask
    task: ControlTask
    adapter: Adapter
    prior: dict[str, str]
    prior_path: Path
    name: str
    title: str
    id: str
    first: bool
    progress: Progress
    cancel: CancelToken | None

    @property
    def best(self) -> Path:
        """The kept checkpoint."""
        return self.folder / BEST


def first_process() -> bool:
    """Whether this is the process that checks, prepares and writes; before the processes know of each other."""
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID"))
    if rank is not None:
        return rank == "0"
    return all(os.environ.get(key, "0") == "0" for key in ("NODE_RANK", "LOCAL_RANK"))


def open_run(
    config: FinetuneConfig,
    data: Path,
    folder: Path,
    *,
    prior: str,
    name: str | None,
    title: str,
    cache: str | Path | None,
    progress: ProgressCallback | None,
    cancel: CancelToken | None,
) -> Run:
    """Refuse what can be refused without reading a case; see :func:`.run.finetune` for the arguments."""
    row = finetune_task(config.task)
    task = row.task(**config.options)
    config = replace(config, options=getattr(task, "all_options", config.options))
    prior_name, path, expected = resolve(prior)
    divisor = network_config(read_header(path)["config"]).divisor
    if task.window % divisor:
        raise InputError(f"A window of {task.window} voxels does not fit the prior.", f"Give a multiple of {divisor}.")
    described = {"name": prior_name, "sha256": check_sha256(path, expected)}
    make_folder(folder)
    _refuse_other_settings(folder, config_of(folder), config, described)
    first = first_process()
    return Run(
        folder,
        data,
        Path(cache) if cache else folder / "cache",
        config,
        row,
        task,
        row.adapter(),
        described,
        path,
        name or _name_of(config.task, folder),
        title,
        "",
        first,
        Progress(folder if first else None, progress if first else None),
        cancel,
    )


@contextlib.contextmanager
def claimed(run: Run, register: bool) -> Iterator[Run]:
    """Keep other runs out of the folder, where two would write the same checkpoint; gives the run with its id.

    Args:
        register: whether the name must be free, or this run's own.

    Raises:
        InputError: another run writes there, or the name is taken.
    """
    if not run.first:
        yield run
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(run.folder, WRITER_LOCK_FILE, LOCK_SECONDS))
        except BlockingIOError:
            raise InputError(
                f"Another fine-tuning run is writing to {run.folder}.", "Wait for its end or name another folder."
            ) from None
        # Not before: one who waited for the lock goes on with the run that was here in the meantime.
        run = replace(run, id=str(config_of(run.folder).get("run") or secrets.token_hex(8)))
        if register:
            check_name(run.name, run.id)
        yield run


def prepare_run(run: Run) -> CheckReport:
    """Check the data and make the cache; neither is done again while the files are the same.

    Raises:
        InputError: the data cannot be trained on, or are not those that the run began with.
    """
    (run.folder / STOP_FILE).unlink(missing_ok=True)
    needs = Needs(
        run.config.task,
        run.row.needs_mask,
        run.task.window,
        run.config.labels,
        run.config.validation,
        run.config.seed,
        run.row.few,
    )
    checked = _checked_before(run, needs)
    if checked is None:
        checked = _check_and_prepare(run, needs)
    before = config_of(run.folder).get("data_sha256")
    if (run.folder / "last.pt").exists() and before not in (None, data_sha256(run.cache)):
        raise InputError(
            f"The cases or their splits have changed since the run in {run.folder} began.",
            "Restore them to continue it, or start anew in another folder.",
        )
    return checked


def write_config(run: Run) -> None:
    """Say with what the run was started."""
    content = {
        **asdict(run.config),
        "run": run.id,
        "prior": run.prior,
        "data": str(run.data.resolve()),
        "data_sha256": data_sha256(run.cache),
    }
    write_json(content, run.folder / "config.json", overwrite=True)


def config_of(folder: Path) -> dict[str, Any]:
    """Settings that the folder's run was started with; empty for a new run."""
    return _read_json(folder / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    """An object, empty where there is none."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _refuse_other_settings(folder: Path, before: dict[str, Any], config: FinetuneConfig, prior: dict[str, str]) -> None:
    """A run goes on with the settings and the prior that it began with; length and pace may change."""
    known = before.get("prior")
    if known and (folder / "last.pt").exists() and known["sha256"] != prior["sha256"]:
        raise InputError(
            f"The run in {folder} was started with the prior {known['name']} ({known['sha256'][:12]}...), not with "
            f"{prior['name']} ({prior['sha256'][:12]}...).",
            "Use that prior to continue it, or another folder.",
        )
    check_same_run(folder, asdict(config))


def _name_of(task: str, folder: Path) -> str:
    """A name for the catalogue from task and folder."""
    ending = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    return f"{task}-{ending}".strip("-")


def _checked_before(run: Run, needs: Needs) -> CheckReport | None:
    """The report of an earlier start, if nothing has changed since: reading all cases again would take its time."""
    before = _read_json(run.folder / "check.json")
    try:
        same = before.get("stamp") == _stamp(run, read_entries(run.data, needs)) and bool(data_sha256(run.cache))
        return CheckReport.from_dict(before) if same else None
    except (InputError, KeyError, TypeError):
        return None


def _check_and_prepare(run: Run, needs: Needs) -> CheckReport:
    checked = check_dataset(
        run.data, needs, report=lambda line: run.progress.emit("checking", message=line), cancel=run.cancel
    )
    _write_check(run, checked)
    checked.raise_for_errors(str(run.folder / "check.txt"))
    entries = read_entries(run.data, needs)
    prepare_cases(
        entries,
        run.cache,
        run.config.labels,
        run.row.needs_mask,
        keep_labels=run.row.keeps_labels,
        report=lambda line: run.progress.emit("preparing", message=line),
        cancel=run.cancel,
    )
    _ask_task(run, checked)
    _write_check(run, checked)
    checked.raise_for_errors(str(run.folder / "check.txt"))
    _write_check(run, checked, _stamp(run, entries))
    return checked


def _ask_task(run: Run, checked: CheckReport) -> None:
    """The task's own findings, in both splits."""
    for split in ("training", "validation"):
        cases = open_control_cases(run.cache, split)
        if not cases and run.row.few and split == "validation":
            continue
        try:
            for sentence in run.task.check(cases):
                checked.add("warning", "task", "", sentence, "Give other cases if too few are left.")
        except InputError as problem:
            checked.add("error", "task", "", f"{split}: {problem.cause}", problem.remedy)


def _write_check(run: Run, checked: CheckReport, stamp: str = "") -> None:
    """The report; with a stamp once the cases are prepared, too."""
    with atomic_path(run.folder / "check.txt", overwrite=True) as temporary:
        temporary.write_text(checked.text(), encoding="utf-8")
    write_json({**checked.as_dict(), "stamp": stamp}, run.folder / "check.json", overwrite=True)


def _stamp(run: Run, entries: list[Entry]) -> str:
    """Changes when a case, a file of one, or a setting that the check goes by changes."""
    lines = [str(run.cache.resolve()), run.config.task, str(run.config.labels), str(run.task.window)]
    for entry in entries:
        lines.append(f"{entry.name} {entry.split} {entry.patient} {entry.region}")
        for path in (entry.image, *entry.files.values()):
            for file in files_of(path) if path.exists() else [path]:
                state = file.stat() if file.exists() else None
                lines.append(f"{file} {state and (state.st_size, state.st_mtime_ns)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
