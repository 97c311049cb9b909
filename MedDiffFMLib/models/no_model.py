"""In place of a prior, for tasks that compute without weights."""

from __future__ import annotations

from dataclasses import dataclass

from .names import NO_MODEL


@dataclass(frozen=True)
class NoModel:
    """A device, and nothing on it.

    Attributes:
        device: "cpu" or "cuda:0".
        name, sha256: as of a prior, for reports.
        precision: of the arithmetic.
    """

    device: str
    name: str = NO_MODEL
    sha256: str = ""
    precision: str = "float32"


def device_alone(requested: str) -> NoModel:
    """No model, on a device.

    Raises:
        InputError, DeviceError: there is no such device.
    """
    from ..core.devices import choose_device

    return NoModel(str(choose_device(requested)))
