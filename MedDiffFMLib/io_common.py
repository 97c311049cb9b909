"""What the readers of all formats share."""

from __future__ import annotations

import numpy as np

from .errors import InputError

MM_PER_UNIT = {"": 1.0, "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1e3, "meter": 1e3, "um": 1e-3, "micron": 1e-3}
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SYNTHETIC_MARK = "SYNTHETIC, in whole or part, made by MedDiff-FM, research use only"  # NIfTI has room for 79 letters

# No compressor in use here (deflate, bzip2) can shrink data by more, so a larger promise is a damaged header.
MAX_COMPRESSION = {"raw": 1, "gzip": 1040, "bzip2": 50_000_000, "text": 2}


def is_synthetic(mark: str) -> bool:
    """Whether a header's text begins as the mark does."""
    return mark.startswith(SYNTHETIC_MARK.partition(",")[0])


def affine(axes: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """4x4 from the three voxel axes (columns, mm per voxel) and the center of the first voxel (mm)."""
    matrix = np.eye(4)
    matrix[:3, :3] = axes
    matrix[:3, 3] = origin
    return matrix


def check_promise(name: str, shape: tuple[int, ...], itemsize: int, available: int, encoding: str) -> None:
    """Refuse a header that promises more than its file can hold, before memory is allocated for it.

    Raises:
        InputError: truncated file or damaged header.
    """
    promised = itemsize
    for n in shape:
        promised *= int(n)  # Python integers do not overflow
    if promised > available * MAX_COMPRESSION[encoding]:
        raise truncated(name, f"its header promises {_bytes(promised)}, the file holds {_bytes(available)}")


def truncated(name: str, detail: str) -> InputError:
    """A file that ends too early or whose header is wrong."""
    return InputError(f"'{name}' is incomplete or damaged: {detail}.", "Copy or export it again.")


def damaged(name: str, kind: str, reason: object) -> InputError:
    """A file that its format's reader cannot make sense of."""
    sentence = " ".join(str(reason).split()).rstrip(".")
    return InputError(
        f"'{name}' is not a readable {kind} file: {sentence}.",
        "Check that the suffix fits the content, or export it again.",
    )


def refuse_not_3d(name: str, shape: tuple[int, ...], kinds: list[str]) -> None:
    """Refuse 2-D, time series, colors and vectors.

    Args:
        shape: sizes in the file's order (i first).
        kinds: what the extra axes are, in words, if the file says so.

    Raises:
        InputError: with the remedy that fits.
    """
    sizes = " x ".join(str(n) for n in shape)
    if len(shape) < 3:
        raise InputError(f"'{name}' is a {len(shape)}-D image ({sizes}), not a 3-D volume.", "Load the whole series.")
    if any(kind in ("color", "vector") for kind in kinds):
        raise InputError(
            f"'{name}' holds colors or vectors ({sizes}), not one number per voxel.", "Use a scalar CT volume."
        )
    if len(shape) > 3:
        raise InputError(
            f"'{name}' is a {len(shape)}-D image ({sizes}): a time series or several channels.",
            "Save the one 3-D volume that you want and use that.",
        )


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
