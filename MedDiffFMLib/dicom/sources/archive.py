"""Series of an archive, by whatever it speaks."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...core.atomic_files import owned_name, sweep
from ...core.errors import InputError
from ...core.progress import CancelToken, ProgressCallback, ProgressEvent
from ..series import Series, sorted_series
from . import dicomweb, dimse
from .address import Address


def listed(address: Address) -> list[Series]:
    """Series that the archive has for an address, in order of the numbers.

    Raises:
        InputError: it cannot be reached, refuses, or has nothing.
        DependencyError: the package for it is missing.
    """
    found = dimse.find(address) if address.scheme == "pacs" else dicomweb.find(address)
    if not found:
        raise InputError(f"The archive has nothing for '{address}'.", "Check the address; * stands for any letters.")
    return sorted_series(found)


@contextlib.contextmanager
def fetched(
    address: Address, series: Series, progress: ProgressCallback | None = None, cancel: CancelToken | None = None
) -> Iterator[Path]:
    """Fetch a series into a folder that is gone after the block.

    Raises:
        InputError: it cannot be fetched whole.
        Cancelled: ``cancel`` was used.
    """

    def tell(arrived: int) -> None:
        if cancel is not None:
            cancel.check()
        if progress is not None:
            progress(ProgressEvent(min(arrived / max(series.images, 1), 1.0), f"fetching series {series.number}", None))

    sweep(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix=f"meddifffm-{owned_name()}-") as temporary:
        folder = Path(temporary) / f"series{series.number or series.uid}"
        folder.mkdir()
        fetch = dimse.fetch if address.scheme == "pacs" else dicomweb.fetch
        fetch(address, series, folder, tell)
        arrived = len(list(folder.iterdir()))
        if arrived == 0 or arrived < series.images:
            raise InputError(
                f"Of series {series.words} only {arrived} images arrived.", "Try again, or ask who runs the archive."
            )
        yield folder
