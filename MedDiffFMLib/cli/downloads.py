"""Consent to downloads: asked on a terminal, given by ``--yes``, and otherwise not given."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ..core.errors import Cancelled, InputError
from ..models.catalogue import find_available
from ..models.download import download, question
from ..models.entry import CatalogueEntry
from ..models.store import is_insecure
from .console import Console


@dataclass(frozen=True)
class Consent:
    """Permissions of the user.

    Attributes:
        yes: not to be asked.
        insecure: addresses without encryption.
    """

    yes: bool = False
    insecure: bool = False


def offer(name: str, consent: Consent, console: Console) -> CatalogueEntry | None:
    """Download a model that a store has and this computer lacks, if the user agrees; None where there is none.

    Raises:
        InputError: nobody can be asked, or the download fails.
        Cancelled: the user says no.
    """
    entry = find_available(name)
    if entry is None:
        return None
    if not consent.yes:
        _ask(entry, console)
    insecure = consent.insecure or is_insecure(entry)
    return download(entry, insecure=insecure, progress=console.progress, cancel=console.cancel)


def _ask(entry: CatalogueEntry, console: Console) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        size = f"{entry.bytes / 1e6:.1f} MB at {entry.address}"
        raise InputError(
            f"The model {entry.name!r} is not on this computer yet: {size}.",
            f"Agree to the download: meddifffm models download {entry.name} --yes.",
        )
    console.ask(f"{question(entry)} [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Cancelled()
