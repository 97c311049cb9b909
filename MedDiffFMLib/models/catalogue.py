"""Model catalogue: names, files, sizes, licenses.

Two places: the models that are shipped, listed in ``models.json``, and those of this user, one ``<name>.json`` each
in a folder of their own. A user's model appears and disappears with its ``.json``, which is renamed into place last
and removed first. Models with an address, of ``models.json`` or of a store, are at hand once they were downloaded.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..core.atomic_files import atomic_path, sweep
from ..core.errors import InputError, ModelError, OutputError
from ..core.resources import resource_folder
from ..core.safe_load import check_fields, plain_name, read_json
from .entry import NAME, CatalogueEntry, user_folder
from .hub import SCHEME, from_hub
from .store import offered

CATALOGUE = "models.json"
_log = logging.getLogger(__name__)


def list_models(kind: str | None = None) -> list[CatalogueEntry]:
    """The shipped models, then this user's; of one kind only if asked for.

    A user's entry that cannot be read, or has the name of a shipped model, is passed over with a log warning.

    Raises:
        ModelError: the shipped catalogue cannot be read.
    """
    entries = {entry.name: entry for entry in _shipped() if not entry.address}
    for entry in _own():
        if entry.name in entries:
            _log.warning("The model %s in %s is hidden by a shipped one of that name.", entry.name, entry.folder)
        else:
            entries[entry.name] = entry
    return [entry for entry in entries.values() if kind in (None, entry.kind)]


def resolve(spec: str) -> tuple[str, Path, str | None]:
    """Catalogue name, ``hf://`` address or path -> (name, file, expected SHA-256 or None for a user's own file)."""
    if spec.startswith(SCHEME):
        return from_hub(spec)
    path = Path(spec)
    if path.suffix or len(path.parts) > 1:
        return path.stem, path, None
    entries = {entry.name: entry for entry in list_models()}
    if spec not in entries:
        remote = find_available(spec)
        if remote is not None:
            raise ModelError(
                f"The model {spec!r} is not on this computer yet: {remote.bytes / 1e6:.1f} MB at {remote.address}.",
                f"Download it: meddifffm models download {spec}.",
            )
        raise ModelError(
            f"There is no model called {spec!r}.",
            f"Choose {', '.join(entries)} or give the path of a .safetensors file.",
        )
    return spec, entries[spec].path, entries[spec].sha256


def available_models() -> list[CatalogueEntry]:
    """Models that can be downloaded and are not on this computer, from what is known without asking anybody."""
    here = {entry.name for entry in list_models()}
    shipped = [entry for entry in _shipped() if entry.address]
    found: dict[str, CatalogueEntry] = {}
    for entry in [*shipped, *offered()]:
        if entry.name not in here:
            found.setdefault(entry.name, entry)
    return list(found.values())


def find_available(name: str) -> CatalogueEntry | None:
    """A model that can be downloaded; None where there is none of that name."""
    return next((entry for entry in available_models() if entry.name == name), None)


def check_name(name: str, run: str = "") -> None:
    """Refuse a name that a new model cannot have.

    Args:
        run: the training run that asks; it may replace its own model.

    Raises:
        InputError: no proper name, or taken.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot be a model's name.", "Use lower-case letters, digits and hyphens.")
    for entry in list_models():
        if entry.name == name and not (entry.is_own and run and entry.run == run):
            remedy = "Choose another name (--name)"
            remove = f", or remove it with `meddifffm models --remove {name}`" if entry.is_own else ""
            raise InputError(f"There is a model called {name!r} already.", f"{remedy}{remove}.")


def register_model(entry: CatalogueEntry, weights: Path, card: str) -> CatalogueEntry:
    """Copy weights and card into the user's folder and list them there, complete or not at all.

    Args:
        entry: ``file``, ``card``, ``bytes`` and ``folder`` are filled in here.
        card: Markdown.

    Raises:
        InputError: the name is taken.
        OutputError: the folder cannot be written to.
    """
    check_name(entry.name, entry.run)
    return _install(entry, weights, card, shutil.copyfile)


def install_model(entry: CatalogueEntry, weights: Path, card: str) -> CatalogueEntry:
    """As :func:`register_model`, for weights that were downloaded into the user's folder and are moved.

    Raises:
        InputError: the name is taken.
        OutputError: the folder cannot be written to.
    """
    check_name(entry.name)
    return _install(entry, weights, card, os.replace)


def _install(entry: CatalogueEntry, weights: Path, card: str, bring: Callable[[Path, Path], object]) -> CatalogueEntry:
    folder = user_folder()
    sweep(folder)
    before = next((old for old in _own() if old.name == entry.name), None)
    # With its hash in the name a file never changes, so the entry that names it is true at any moment.
    stem = f"{entry.name}.{entry.sha256[:8]}"
    record = {field.name: getattr(entry, field.name) for field in fields(entry) if field.name != "folder"}
    record |= {"file": f"{stem}.safetensors", "card": f"{stem}.md", "bytes": weights.stat().st_size}
    with atomic_path(folder / record["file"], overwrite=True) as temporary:
        bring(weights, temporary)
    with atomic_path(folder / record["card"], overwrite=True) as temporary:
        temporary.write_text(card, encoding="utf-8")
    with atomic_path(folder / f"{entry.name}.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if before is not None and before.file != record["file"]:
        _remove_files(before)
    return CatalogueEntry(**record, folder=folder)


def remove_model(name: str) -> CatalogueEntry:
    """Remove a model of this user with its files.

    Raises:
        InputError: there is no such model, or it is a shipped one.
        OutputError: no permission.
    """
    entry = next((own for own in _own() if own.name == name), None)
    if entry is None or entry.folder is None:
        shipped = any(other.name == name for other in _shipped())
        cause = f"{name!r} is shipped with MedDiff-FM." if shipped else f"There is no model called {name!r}."
        raise InputError(cause, "Only models that `meddifffm models` lists as your own can be removed.")
    try:
        (entry.folder / f"{name}.json").unlink(missing_ok=True)
        _remove_files(entry)
    except OSError as error:
        raise OutputError(
            f"The files of {name!r} in {entry.folder} cannot be removed: {error.strerror or error}.",
            "Check the permissions of the folder.",
        ) from error
    return entry


def _remove_files(entry: CatalogueEntry) -> None:
    """Weights and card of an entry that is no longer listed."""
    entry.path.unlink(missing_ok=True)
    if entry.card:
        entry.path.with_name(entry.card).unlink(missing_ok=True)


def _shipped() -> list[CatalogueEntry]:
    path = resource_folder() / "Models" / CATALOGUE
    try:
        records: list[dict[str, Any]] = read_json(path)["models"]
        return [CatalogueEntry(**record) for record in records]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"The model catalogue {path} cannot be read ({error}).", "Install MedDiff-FM again."
        ) from error


def _own() -> list[CatalogueEntry]:
    """Entries of the user's folder by name; damaged ones are passed over."""
    folder, entries = user_folder(), []
    for path in sorted(folder.glob("*.json")):
        try:
            record = read_json(path)
            entry = CatalogueEntry(**record, folder=folder)
            check_fields(CatalogueEntry, record)
            _check_files(entry, path.stem)
            entries.append(entry)
        except (OSError, ValueError, TypeError) as error:
            _log.warning("The model entry %s cannot be read (%s); remove it or train again.", path, error)
    return entries


def _check_files(entry: CatalogueEntry, name: str) -> None:
    """Files lie in the user's folder and bear the entry's name: removing one model must not touch another."""
    if entry.name != name or not NAME.fullmatch(name):
        raise ValueError("names do not fit")
    if not all(plain_name(file) and file.startswith(f"{name}.") for file in (entry.file, entry.card or f"{name}.md")):
        raise ValueError("its files are not its own")
