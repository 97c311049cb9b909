"""Worker on another computer in a model's place, for commands that take cases from files to files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.progress import CancelToken, ProgressCallback
from ..runner.settings import RunSettings
from ..tasks.base import Case, TaskResult
from ..tasks.inputs import NONE
from ..tasks.registry import TASKS
from .exchange import RunRequest
from .transport import WorkerClient


class RemoteWorker:
    """A warm worker elsewhere that holds the model; see :class:`MedDiffFMLib.runner.load.Elsewhere`.

    Args:
        address: ``ssh://user@host``, see :mod:`MedDiffFMLib.worker.address`.
        on_log: receives what is said there.

    Attributes:
        hello: what the worker said of itself: python, torch, devices.
        sha256: of its weights, once it has computed with them.

    Raises:
        MedDiffFMError: it cannot be reached, or is of another version.
    """

    def __init__(self, address: str, on_log: Callable[[str], None] = lambda _: None) -> None:
        self._client = WorkerClient(address, on_log=on_log)
        self.hello = self._client.start()
        self.sha256: str | None = None

    def compute(
        self,
        settings: RunSettings,
        case: Case,
        progress: ProgressCallback | None = None,
        cancel: CancelToken | None = None,
    ) -> tuple[TaskResult, dict[str, Any]]:
        """Have a checked case computed there; gives its result and the report without inputs and outputs.

        Raises:
            Cancelled: after ``cancel``.
            MedDiffFMError: what went wrong there, or a connection that was lost.
        """
        given = self._client.run(_request(settings, case), progress=progress, cancel=cancel)
        self.sha256 = given.report["model"]["sha256"]
        places = {name: np.array(matrix) for name, matrix in given.ijk_to_ras.items()}
        result = TaskResult(given.volumes, given.tables, given.texts, given.facts, given.warnings, ijk_to_ras=places)
        return result, given.report

    def close(self) -> None:
        """End it."""
        self._client.close()


def _request(settings: RunSettings, case: Case) -> RunRequest:
    """A case as a message; a task that makes a CT has no volume, only a grid."""
    scan = case.volume
    scans = {**case.scans, **({} if scan is None else {"volume": scan})}
    makes = TASKS[settings.task].inputs.volume is NONE
    return RunRequest(
        settings,
        voxels=None if scan is None or makes else scan.voxels,
        ijk_to_ras=None if scan is None else scan.ijk_to_ras,
        mask=case.mask,
        anatomy=case.anatomy,
        scans={name: (volume.voxels, volume.ijk_to_ras) for name, volume in case.scans.items()},
        texts=case.texts,
        beams={name: one.beam_source for name, one in scans.items() if one.beam_source is not None},
    )
