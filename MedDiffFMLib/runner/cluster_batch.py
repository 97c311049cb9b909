"""Batch on a Dask cluster: one warm model a worker, the cases of lost workers again, the table of one process.

Workers read and write the files themselves, under the same paths as the client; only orders and rows travel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.cluster import ClusterPlan, opened, results
from ..core.errors import DependencyError, InputError, MedDiffFMError, ModelError, OutputError
from ..core.file_hash import file_sha256
from ..core.input_guard import InputGuard
from ..core.progress import CancelToken, ProgressCallback, ProgressEvent
from ..models.catalogue import resolve
from ..models.names import NO_MODEL
from .batch import CaseStatus, failed, run_claimed, write_table
from .bids import BIDS, PLAIN, describe_derivatives, planned
from .case_files import CaseFiles
from .load import Here, load
from .outputs import make_folder
from .read_files import files_read
from .settings import RunSettings

_LOCK = threading.Lock()
"""A model computes one case at a time, also in a worker with several threads."""
_WARM: dict[tuple[str, ...], Here] = {}
"""The model of this worker, by what it was loaded as."""


@dataclass(frozen=True)
class Order:
    """One case for a worker.

    Attributes:
        sha256: of the weights, which the worker must have too; "" where there are none.
        options: of :func:`runner.batch.run_claimed`.
        version: of this library.
    """

    settings: RunSettings
    case: CaseFiles
    folder: Path
    sha256: str
    options: dict[str, Any]
    version: str = __version__


def run_on_cluster(
    settings: RunSettings,
    cases: Sequence[CaseFiles],
    folder: Path,
    cluster: ClusterPlan,
    *,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
    on_case: Callable[[CaseStatus], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> list[CaseStatus]:
    """Run all cases as :func:`runner.batch.run_batch` does, with the same results and the same table.

    Args:
        settings: without a number of threads those of this computer are shared among local workers.
        on_case: called for each case in the order in which they finish.
        note: is told where the dashboard is.
        options: of :func:`runner.batch.run_claimed`, such as ``overwrite``.

    Returns:
        Rows in the order of the cases.

    Raises:
        ModelError: there is no such model here.
        DeviceError: the cluster cannot be used.
        Cancelled: after the table was written.
    """
    settings = settings.checked()
    if settings.threads is None:
        settings = replace(settings, threads=cluster.threads)
    make_folder(folder)
    names = options.get("names", PLAIN)
    if names == BIDS:
        describe_derivatives(folder, settings.task)
    sha256 = "" if settings.model == NO_MODEL else _sha256(settings.model)
    rows: dict[int, CaseStatus] = {}

    def finished(number: int, row: CaseStatus) -> None:
        rows[number] = row
        on_case(row)
        write_table([rows[n] for n in sorted(rows)], folder, settings.task)
        if progress is not None:
            progress(ProgressEvent(len(rows) / len(cases), f"{len(rows)} of {len(cases)} cases", None))

    for number, problem in _refused(settings, cases, folder, names):
        finished(number, failed(cases[number], problem))
    numbers = [number for number in range(len(cases)) if number not in rows]
    before = {number: _stamp(settings, cases[number], folder, names) for number in numbers}
    with opened(cluster, note) as client:
        orders = [Order(settings, _absolute(cases[n]), folder.absolute(), sha256, options) for n in numbers]
        for place, result in results(client, work, orders, cancel):
            number = numbers[place]
            row = result if isinstance(result, CaseStatus) else failed(cases[number], result)
            # A worker may die between its results and its answer: the next one finds them done.
            if row.status == "skipped" and _stamp(settings, cases[number], folder, names) != before[number]:
                row = replace(row, status="done", message="")
            finished(number, row)
    return [rows[number] for number in sorted(rows)]


def _stamp(settings: RunSettings, case: CaseFiles, folder: Path, names: str) -> tuple[int, int] | None:
    """Time and size of a case's report; None while there is none."""
    try:
        found = planned(settings.task, case.source, folder, names).report.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _refused(
    settings: RunSettings, cases: Sequence[CaseFiles], folder: Path, names: str
) -> Iterator[tuple[int, MedDiffFMError]]:
    """Numbers of the cases without a proper name, or whose outputs are inputs of any case, and why."""
    # Workers know their own case only.
    guard = InputGuard(files_read((path for case in cases for path in case.paths.values()), settings))
    for number, case in enumerate(cases):
        try:
            guard.refuse(planned(settings.task, case.source, folder, names).expected(settings.task))
        except (InputError, OutputError) as problem:
            yield number, problem


def work(order: Order) -> CaseStatus:
    """One case, in a worker."""
    if order.version != __version__:
        raise DependencyError(
            f"A worker has MedDiff-FM {__version__}, the client {order.version}.", "Install the same on all computers."
        )
    settings = order.settings
    with _LOCK:
        model = _warm(settings, order.sha256)
        return run_claimed(settings, order.case, order.folder, model, InputGuard(()), **order.options)


def _warm(settings: RunSettings, sha256: str) -> Here:
    """The model, loaded once."""
    key = (settings.model, settings.device, settings.precision, sha256)
    if key not in _WARM:
        _WARM.clear()
        model = load(settings)
        if model.sha256 != sha256:
            raise ModelError(f"A worker has other weights as {model.name!r}.", "Install the same on all computers.")
        _WARM[key] = model
    return _WARM[key]


def _sha256(spec: str) -> str:
    """Hash of the weights that a name or a path means here.

    Raises:
        ModelError: there is no such file.
    """
    from ..models.checkpoint import read_header

    _, path, expected = resolve(spec)
    read_header(path)
    return expected or file_sha256(path)


def _absolute(case: CaseFiles) -> CaseFiles:
    """The case for a process with another current folder. Links stay, for they may name the results."""

    def place(path: Path | None) -> Path | None:
        return None if path is None else path.absolute()

    scans = {name: path.absolute() for name, path in case.scans.items()}
    return replace(case, input=place(case.input), mask=place(case.mask), anatomy=place(case.anatomy), scans=scans)
