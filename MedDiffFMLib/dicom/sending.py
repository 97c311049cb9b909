"""Objects to other archives: C-STORE over the DICOM network, STOW-RS over DICOMweb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from .sources.address import Address
from .sources.dicomweb import client_of, failures_of
from .sources.dimse import association

_WARNINGS = range(0xB000, 0xC000)
_THERE_ALREADY = 0x0111
"""Duplicate SOP instance: the object, which never changes, arrived before."""
Stored = Callable[[Path], None]


def send(target: Address, files: Sequence[Path], stored: Stored, tls: Any = None) -> None:
    """Send objects, one after the other.

    Args:
        files: with a meta header each.
        stored: told of each that the other side has taken; may raise to stop.
        tls: an ``ssl.SSLContext`` for ``pacs+tls://``.

    Raises:
        InputError: it cannot be reached, or refuses one.
        DependencyError: the package for it is missing.
    """
    if not files:
        return
    if target.scheme.startswith("dicomweb"):
        _stow(target, files, stored)
    else:
        _store(target, files, stored, tls if target.scheme == "pacs+tls" else None)


def _store(target: Address, files: Sequence[Path], stored: Stored, tls: Any) -> None:
    from pydicom.filereader import read_file_meta_info

    metas = [read_file_meta_info(file) for file in files]
    classes = dict.fromkeys(str(meta.MediaStorageSOPClassUID) for meta in metas)
    syntaxes = dict.fromkeys(str(meta.TransferSyntaxUID) for meta in metas)
    with association(target, classes, list(syntaxes), tls) as link:
        for file, meta in zip(files, metas, strict=True):
            try:
                status = link.send_c_store(file)
            except ValueError as problem:
                name = meta.MediaStorageSOPClassUID.name
                raise InputError(f"{target.title} takes no {name}.", "Ask who runs it to allow them.") from problem
            except RuntimeError:  # the association ended in between
                status = None
            _check_status(target, status)
            stored(file)


def _check_status(target: Address, status: Any) -> None:
    if not status:
        raise InputError(f"{target.title} broke the connection off.", "Ask who runs it.")
    code = int(status.Status)
    if code not in (0, _THERE_ALREADY) and code not in _WARNINGS:
        comment = str(status.get("ErrorComment", "")) or "no reason given"
        raise InputError(f"{target.title} refuses with {code:04X} ({comment:.80}).", "Ask who runs it.")


def _stow(target: Address, files: Sequence[Path], stored: Stored) -> None:
    from pydicom import dcmread

    client = client_of(target)
    for file in files:
        with failures_of(target):
            answer = client.store_instances([dcmread(file)])
        refused = [int(row.get("FailureReason", 0)) for row in answer.get("FailedSOPSequence") or []]
        if any(reason != _THERE_ALREADY for reason in refused):
            raise InputError(f"{target.host} refuses with {refused[0]:04X}.", "Ask who runs it.")
        stored(file)
