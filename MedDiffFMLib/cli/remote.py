"""Scan of an archive, fetched for one command."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import InputError
from ..dicom.series import choose_series
from ..dicom.sources.address import Address, address_or_path
from ..dicom.sources.archive import fetched, listed
from .console import Console


def source(text: str) -> Path | Address:
    """An argument that is a path or an address; what is wrong with it is said as of any argument."""
    try:
        return address_or_path(text)
    except InputError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


@contextlib.contextmanager
def local_copy(
    given: Path | Address | None, wanted: str | None, modality: str, console: Console
) -> Iterator[tuple[Path | None, str | None]]:
    """Path of a scan on the disk while the block runs, and the address that it came from.

    Args:
        wanted: number or UID of the series, where there are several.
    """
    if not isinstance(given, Address):
        yield given, None
        return
    series = choose_series(str(given), listed(given), wanted, modality, console.note)
    with fetched(given, series, console.progress, console.cancel) as folder:
        yield folder, given.of_series(series.study, series.uid)
