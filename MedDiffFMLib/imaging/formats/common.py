"""Shared parts of the readers of all formats."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...core.errors import InputError, expected

MM_PER_UNIT = {"": 1.0, "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1e3, "meter": 1e3, "um": 1e-3, "micron": 1e-3}
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SYNTHETIC_MARK = "SYNTHETIC, in whole or part, made by MedDiff-FM, research use only"  # NIfTI has room for 79 letters

# No compressor in use here can shrink a CT by more, so a larger promise is a damaged header. For constant images bzip2
# and the JPEG family could, but a volume of those is of no use.
MAX_COMPRESSION = {"raw": 1, "gzip": 1040, "bzip2": 20_000, "text": 4, "rle": 64, "jpeg": 5000}
MAX_HEADER = 1 << 24
"""Bytes that headers and their extensions may take before the voxels begin."""
_PORTION = 1 << 20
_SPEAKING = ("nrrd", "nibabel")
"""Packages whose own exceptions are sentences about files; those of Python speak of lists and literals."""


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


def damaged(name: str, kind: str, reason: str | Exception) -> InputError:
    """A file that its format's reader cannot make sense of.

    Args:
        reason: in words, or what a parser raised, whose words are only passed on where they speak of files.
    """
    spoken = isinstance(reason, str) or type(reason).__module__.partition(".")[0] in _SPEAKING
    sentence = " ".join(str(reason).split()).rstrip(".") if spoken else "its header makes no sense"
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


@contextlib.contextmanager
def parsing(refusal: Callable[[Exception], InputError]) -> Iterator[None]:
    """Around a foreign parser, which may raise anything on damaged bytes: all of it becomes ``refusal(error)``.

    Failures of the system (no permission, no memory) are not the file's fault and pass.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None or expected(error) is not None:
            raise
        raise refusal(error) from error


class Portions(io.BufferedIOBase):
    """A binary file that gives what there is in portions, however much is asked for.

    Python allocates what ``read(n)`` asks for before it looks at the file, so a damaged length of 2 GB would take
    2 GB; and what a compressed file turns into has no bound but the one that is set here.

    Args:
        file: stays open when this is closed.
        limit: bytes that one ``read`` gives at most.
    """

    def __init__(self, file: Any, limit: int = MAX_HEADER) -> None:
        self._file, self._limit = file, limit

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes, all that are left for -1; raises EOFError above the limit."""
        portions: list[bytes] = []
        given, left = 0, self._limit + 1 if size is None or size < 0 else size
        while left > 0 and (data := self._file.read(min(left, _PORTION))):
            portions.append(data)
            given, left = given + len(data), left - len(data)
            if given > self._limit:
                raise EOFError(f"more than {_bytes(self._limit)} where a header should be")
        return b"".join(portions)

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
