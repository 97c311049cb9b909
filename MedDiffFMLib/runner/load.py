"""Model of a run: the prior that its settings name, or the device alone for a task without one."""

from __future__ import annotations

from typing import TypeAlias

from ..models.checkpoint import FoundationModel, load_model
from ..models.names import NO_MODEL
from ..models.no_model import NoModel, device_alone
from .settings import RunSettings

Loaded: TypeAlias = FoundationModel | NoModel


def load(settings: RunSettings) -> Loaded:
    """The model of checked settings.

    Raises:
        ModelError: there is no such model, or its file cannot be used.
        InputError, DeviceError: there is no such device.
    """
    if settings.model == NO_MODEL:
        return device_alone(settings.device)
    return load_model(settings.model, device=settings.device, precision=settings.precision)
