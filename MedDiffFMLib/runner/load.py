"""Model of a run: the prior that its settings name, or the device alone for a task without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from ..models.checkpoint import FoundationModel, load_model
from ..models.names import NO_MODEL
from ..models.no_model import NoModel, device_alone
from .settings import RunSettings

if TYPE_CHECKING:
    from ..core.progress import CancelToken, ProgressCallback
    from ..tasks.base import Case, TaskResult


@runtime_checkable
class Elsewhere(Protocol):
    """A model that another process or computer holds, which computes with it.

    Attributes:
        sha256: of the weights; None as long as nothing was computed with them.
    """

    sha256: str | None

    def compute(
        self,
        settings: RunSettings,
        case: Case,
        progress: ProgressCallback | None,
        cancel: CancelToken | None,
    ) -> tuple[TaskResult, dict[str, Any]]:
        """As :func:`runner.case.compute`; the report's inputs and texts are filled in by the caller."""


Here: TypeAlias = FoundationModel | NoModel
Loaded: TypeAlias = Here | Elsewhere


def load(settings: RunSettings) -> Here:
    """The model of checked settings.

    Raises:
        ModelError: there is no such model, or its file cannot be used.
        InputError, DeviceError: there is no such device.
    """
    if settings.model == NO_MODEL:
        return device_alone(settings.device)
    return load_model(settings.model, device=settings.device, precision=settings.precision)
