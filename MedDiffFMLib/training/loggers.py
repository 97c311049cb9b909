"""Loggers of Lightning Fabric for programs that show the curves of many runs: TensorBoard and MLflow."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.extras import needed
from .fabric import Logger, TensorBoardLogger

TENSORBOARD, MLFLOW = "tensorboard", "mlflow"
TRACKING = "MLFLOW_TRACKING_URI"
_LONGEST = 500
"""Characters of a parameter's value that MLflow keeps at least."""


def make_logger(name: str | None, folder: Path) -> list[Any]:
    """The logger of a run for Fabric; none without a name.

    Args:
        folder: of the run, which receives TensorBoard's files, or the number of the run at MLflow.

    Raises:
        DependencyError: its package is missing.
    """
    if name is None:
        return []
    if name == TENSORBOARD:
        needed("tensorboard", "the logger tensorboard")
        return [TensorBoardLogger(folder, name=TENSORBOARD, version="")]
    return [MLflowLogger(folder)]


class MLflowLogger(Logger):
    """Logger to an MLflow server, or without one to a database in the folder of the run.

    A run that is continued goes on under its number.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        place = os.environ.get(TRACKING) or f"sqlite:///{(folder / 'mlflow.db').resolve().as_posix()}"
        self._client = needed("mlflow", "the logger mlflow").MlflowClient(tracking_uri=place)
        self._run = ""

    @property
    def name(self) -> str:
        """Of the experiment."""
        return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "meddifffm"

    @property
    def version(self) -> str:
        """Number of the run; the run is made when something is logged first, which the first process alone does."""
        if not self._run:
            note = self.folder / "mlflow_run.txt"
            if note.exists():
                self._run = note.read_text(encoding="utf-8").strip()
                self._client.update_run(self._run, status="RUNNING")
            else:
                known = self._client.get_experiment_by_name(self.name)
                experiment = known.experiment_id if known else self._client.create_experiment(self.name)
                self._run = self._client.create_run(experiment, run_name=self.folder.resolve().name).info.run_id
                note.write_text(f"{self._run}\n", encoding="utf-8")
        return self._run

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Figures of one step."""
        for key, value in metrics.items():
            self._client.log_metric(self.version, key, float(value), step=step or 0)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Settings of the run; those that are known already stay."""
        known = self._client.get_run(self.version).data.params
        for key, value in flattened(params).items():
            if key not in known:
                self._client.log_param(self.version, key, str(value)[:_LONGEST])

    def finalize(self, status: str) -> None:
        """Tell that the run has ended."""
        if self._run:
            self._client.set_terminated(self._run, "FINISHED" if status == "success" else "KILLED")


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings in settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = isinstance(value, Mapping)
        flat |= flattened(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def log_row(fabric: Any, name: str, row: Mapping[str, float]) -> None:
    """A row of ``losses.csv`` or ``validation.csv`` to the loggers of a run, if it has any."""
    part = Path(name).stem
    figures = {f"{part}/{key}": value for key, value in row.items() if key != "step" and math.isfinite(value)}
    for logger in getattr(fabric, "loggers", ()):
        logger.log_metrics(figures, step=int(row["step"]))
