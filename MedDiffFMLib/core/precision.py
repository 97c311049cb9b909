"""Precision: the type of a network's arithmetic, decided here for inference, training and validation alike.

Only networks are computed in bfloat16, under autocast: weights, Haar transform, preconditioning, loss and sums stay in
float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .devices import is_fast_in_bfloat16
from .errors import InputError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16")


def check_precision(requested: str) -> None:
    """Raise InputError for anything but one of ``PRECISIONS``."""
    if requested not in PRECISIONS:
        raise InputError(f"There is no precision called {requested!r:.80}.", "Use auto, float32 or bfloat16.")


def choose_precision(requested: str, device: torch.device) -> torch.dtype:
    """One of ``PRECISIONS`` -> type of the network's arithmetic; "auto" is what the device computes fast."""
    import torch

    check_precision(requested)
    if requested == "auto":
        return torch.bfloat16 if is_fast_in_bfloat16(device) else torch.float32
    return torch.float32 if requested == "float32" else torch.bfloat16


def autocast(device: torch.device, precision: str | torch.dtype = "auto") -> torch.autocast:
    """Context in which networks on a device are computed in a precision.

    Args:
        precision: as requested of :func:`choose_precision`, or what it chose.
    """
    import torch

    dtype = choose_precision(precision, device) if isinstance(precision, str) else precision
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
