"""Download of a model: asked for, resumed, checked against its SHA-256, there whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import time
import urllib.error
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ..core.errors import InputError, ModelError, OutputError, is_disk_full, reason_of
from ..core.file_hash import file_sha256
from ..core.file_lock import locked
from ..core.progress import CancelToken, ProgressCallback, ProgressMeter
from .catalogue import check_name, install_model
from .entry import CatalogueEntry, user_folder
from .store import check_address, opened, reason_of_failure

_BLOCK = 1 << 18
_TRIES = 5
_PAUSE_SECONDS = 1.0
_SPARE_BYTES = 64 << 20


def question(entry: CatalogueEntry) -> str:
    """Question to the user before anything is downloaded."""
    return (
        f"Download the model {entry.name} ({entry.title}), {entry.bytes / 1e6:.1f} MB, licence {entry.licence}, "
        f"from {entry.address} into {user_folder()}?"
    )


def download(
    entry: CatalogueEntry,
    *,
    insecure: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> CatalogueEntry:
    """Download a model that the user agreed to, and list it among the user's own.

    What came before a connection was lost, or the program was stopped, is kept and gone on with.

    Args:
        insecure: whether the address may be without encryption.

    Raises:
        InputError: the address is not allowed or gives nothing, or the name is taken.
        ModelError: what came is not what the catalogue promises.
        OutputError: the folder cannot be written to, or the disk is full.
        Cancelled: ``cancel`` was used.
    """
    check_address(entry.address, insecure)
    check_name(entry.name)
    folder = user_folder()
    part = folder / f".{entry.name}.{entry.sha256[:16]}.part"
    with _alone(folder, part.name):
        meter = ProgressMeter(entry.bytes, progress, cancel)
        begun_before = part.exists()
        _fetch(entry, part, insecure, meter)
        if not _is_right(entry, part) and begun_before:  # the first part may have been of another file
            part.unlink()
            _fetch(entry, part, insecure, ProgressMeter(entry.bytes, progress, cancel))
        if not _is_right(entry, part):
            part.unlink(missing_ok=True)
            raise ModelError(
                f"What {entry.address} gives is not the file of the catalogue: its SHA-256 or size differs.",
                "Nothing was kept. Ask who runs the store.",
            )
        return install_model(entry, part, _card(entry))


@contextlib.contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes from the same download."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, f"{name}.lock"):
            yield
    except BlockingIOError:
        raise InputError("Another process downloads this model.", "Wait for it.") from None
    except OSError as problem:
        if isinstance(problem, urllib.error.URLError):
            raise
        cause = (
            "The disk is full" if is_disk_full(problem) else f"'{folder}' cannot be written to: {reason_of(problem)}"
        )
        raise OutputError(f"{cause}.", "Free some space, or name another folder in MEDDIFFFM_MODELS.") from problem
    (folder / f"{name}.lock").unlink(missing_ok=True)


def _is_right(entry: CatalogueEntry, part: Path) -> bool:
    return part.exists() and part.stat().st_size == entry.bytes and file_sha256(part) == entry.sha256


def _fetch(entry: CatalogueEntry, part: Path, insecure: bool, meter: ProgressMeter) -> None:
    """Bring the part to its full size; a connection that is cut is begun again where it was."""
    tries, most = 0, _size(part)
    meter.advance(most, f"downloading {entry.name}")
    while _size(part) < entry.bytes:
        _check_room(entry, part)
        try:
            _append(entry, part, insecure, meter)
            reason = "the connection ended too early"
        except (ConnectionError, TimeoutError, HTTPException, urllib.error.URLError) as problem:
            if isinstance(problem, urllib.error.HTTPError) and problem.code < 500 and problem.code != 429:
                raise _unreachable(entry, reason_of_failure(problem)) from problem
            reason = reason_of_failure(problem) if isinstance(problem, OSError) else "the connection broke off"
        if _size(part) >= entry.bytes:
            return
        tries, most = (0 if _size(part) > most else tries + 1), max(most, _size(part))
        if tries >= _TRIES:
            raise _unreachable(entry, reason, part)
        time.sleep(_PAUSE_SECONDS * tries)


def _unreachable(entry: CatalogueEntry, reason: str, part: Path | None = None) -> InputError:
    kept = f" {_size(part) / 1e6:.1f} MB are kept; the same command goes on." if part and _size(part) else ""
    return InputError(f"{entry.address} cannot be downloaded: {reason}.", f"Check address and network.{kept}")


def _append(entry: CatalogueEntry, part: Path, insecure: bool, meter: ProgressMeter) -> None:
    """One connection: from where the part ends, or from the beginning where the other side cannot do that."""
    begin = _size(part)
    with opened(entry.address, insecure, {"Range": f"bytes={begin}-"} if begin else None) as answer:
        goes_on = begin > 0 and _range_of(answer) == begin
        with part.open("ab" if goes_on else "wb") as file:
            if begin and not goes_on:
                file.truncate(0)
            for block in iter(lambda: answer.read(_BLOCK), b""):
                file.write(block)
                meter.advance(len(block))
                if file.tell() > entry.bytes:  # whoever sends more sends something else
                    return


def _range_of(answer: Any) -> int | None:
    """Place where the bytes of an answer begin; None where it does not say so, or has all of them."""
    if getattr(answer, "status", None) != 206:
        return None
    words = str(answer.headers.get("Content-Range", "")).removeprefix("bytes ").partition("-")[0]
    return int(words) if words.isdecimal() else None


def _check_room(entry: CatalogueEntry, part: Path) -> None:
    free = shutil.disk_usage(part.parent).free
    left = entry.bytes - _size(part)
    if free < left + _SPARE_BYTES:
        raise OutputError(
            f"{entry.name} needs {left / 1e6:.0f} MB more, and {free / 1e6:.0f} MB are free in '{part.parent}'.",
            "Free some space, or name another folder in MEDDIFFFM_MODELS.",
        )


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _card(entry: CatalogueEntry) -> str:
    """Card of the model from what its catalogue says."""
    lines = [f"# {entry.title}", "", entry.description, "", f"* Licence: {entry.licence}"]
    return "\n".join([*lines, f"* Training data: {entry.training_data}", f"* Downloaded from: {entry.address}", ""])
