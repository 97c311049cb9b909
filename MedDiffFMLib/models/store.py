"""Model stores: catalogues of a laboratory at addresses that the user named.

A store is a ``models.json`` as the shipped one, at an ``https://`` or ``file://`` address or in a folder. What it
offers is read when the store is added and when the user asks for news, and is kept in the user's folder, so that names
are known without a network. Nothing else is ever downloaded without being asked for.
"""

from __future__ import annotations

import hashlib
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..core.errors import InputError
from ..core.json_files import write_json
from ..core.safe_load import check_fields, parse_json, plain_name, read_json
from .entry import NAME, CatalogueEntry, user_folder

STORES_VARIABLE = "MEDDIFFFM_STORES"
"""Addresses of stores, separated by spaces, besides those that were added."""
INSECURE = "--insecure"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MOST_BYTES = 4 << 20
_MOST_ROWS = 1000
_SECONDS = 30
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """One store.

    Attributes:
        address: of its catalogue.
        insecure: whether the user allowed it without encryption.
        models: what it offered when it was asked last.
    """

    address: str
    insecure: bool = False
    models: tuple[CatalogueEntry, ...] = ()


def check_address(address: str, insecure: bool = False) -> str:
    """An address that may be downloaded from.

    Raises:
        InputError: no address, with a password in it, or not encrypted though it leads to another computer.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urllib.parse.SplitResult("", "", "", "", ""), ""
    known = parts.scheme == "file" or (parts.scheme in ("https", "http") and host)
    if not known or not address.isprintable() or " " in address:
        raise InputError(f"{address!r:.200} is no address of a model.", "Write https://HOST/PATH or file:///PATH.")
    if parts.username is not None or parts.password is not None:
        raise InputError("A password stands in the address, where others can read it.", "Leave it out.")
    if parts.scheme == "http" and host not in _LOOPBACK and not insecure:
        raise InputError(
            f"'{address:.200}' is not encrypted: on the way anybody can read and change what comes.",
            f"Use https://, or give {INSECURE} for a network that you trust.",
        )
    return address


def as_address(text: str) -> str:
    """Address of a catalogue, from an address or a path; of a folder, that of its ``models.json``."""
    if "://" not in text:
        path = Path(text).expanduser().resolve()
        return (path / "models.json" if path.is_dir() else path).as_uri()
    return text if text.lower().endswith(".json") else f"{text.rstrip('/')}/models.json"


def opened(address: str, insecure: bool, headers: dict[str, str] | None = None) -> BinaryIO:
    """The answer of an address; each address that it is sent on to must be allowed, too.

    Raises:
        InputError: the address is not allowed.
        OSError: nobody answers, or with an error.
    """

    class Redirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, request: Any, answer: Any, code: int, words: str, head: Any, new: str) -> Any:
            check_address(new, insecure)
            return super().redirect_request(request, answer, code, words, head, new)

    request = urllib.request.Request(check_address(address, insecure), headers=headers or {})
    return urllib.request.build_opener(Redirects).open(request, timeout=_SECONDS)  # type: ignore[no-any-return]


def reason_of_failure(problem: OSError) -> str:
    """Reason why an address gave nothing, in words."""
    if isinstance(problem, urllib.error.HTTPError):
        return f"it answers {problem.code} {problem.reason}"
    inner = getattr(problem, "reason", problem)
    return str(getattr(inner, "strerror", None) or inner).rstrip(".") or type(problem).__name__


# Stores that were added


def stores() -> list[Store]:
    """Those that were added, then those of the environment; with what is known of them."""
    known = {store.address: store for store in _saved()}
    for text in os.environ.get(STORES_VARIABLE, "").split():
        known.setdefault(as_address(text), Store(as_address(text)))
    return list(known.values())


def is_insecure(entry: CatalogueEntry) -> bool:
    """Whether the user allowed the store of a model without encryption."""
    return any(store.insecure and entry in store.models for store in stores())


def offered() -> list[CatalogueEntry]:
    """Models of all stores."""
    return [entry for store in stores() for entry in store.models]


def add_store(text: str, insecure: bool = False) -> Store:
    """Ask a store what it offers, and remember it.

    Args:
        text: address or path.
        insecure: whether it may be without encryption.

    Raises:
        InputError: it cannot be read, or is no catalogue.
        OutputError: the user's folder cannot be written to.
    """
    address = check_address(as_address(text), insecure)
    store = Store(address, insecure, tuple(_read(address, insecure)))
    records = [_record(entry) for entry in store.models]
    write_json({"address": address, "insecure": insecure, "models": records}, _file(address), overwrite=True)
    return store


def remove_store(text: str) -> str:
    """Forget a store; its models that were downloaded stay.

    Raises:
        InputError: it was never added.
    """
    address = as_address(text)
    if not _file(address).exists():
        names = ", ".join(store.address for store in _saved()) or "none"
        raise InputError(f"There is no store '{address:.200}'.", f"Added are: {names}.")
    _file(address).unlink()
    return address


def _file(address: str) -> Path:
    return user_folder() / "stores" / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}.json"


def _saved() -> list[Store]:
    """Those that can be read; damaged ones are passed over with a log warning."""
    found = []
    for path in sorted((user_folder() / "stores").glob("*.json")):
        try:
            values = read_json(path)
            rows = tuple(_entry(row, values["address"]) for row in values["models"])
            found.append(Store(str(values["address"]), bool(values["insecure"]), rows))
        except (OSError, ValueError, TypeError, KeyError, InputError) as problem:
            _log.warning("The store %s cannot be read (%s); add it again.", path, problem)
    return found


def _record(entry: CatalogueEntry) -> dict[str, Any]:
    return {name: value for name, value in vars(entry).items() if name != "folder"}


def _read(address: str, insecure: bool) -> list[CatalogueEntry]:
    """The entries of a catalogue."""
    try:
        with opened(address, insecure) as answer:
            content = answer.read(_MOST_BYTES + 1)
    except OSError as problem:
        raise InputError(
            f"The store '{address:.200}' cannot be read: {reason_of_failure(problem)}.",
            "Check the address and the network.",
        ) from problem
    try:
        if len(content) > _MOST_BYTES:
            raise ValueError("it is too large")
        rows = parse_json(content.decode("utf-8"))["models"]
        if not isinstance(rows, list) or len(rows) > _MOST_ROWS:
            raise ValueError("its models are no list")
        entries = [_entry(row, address) for row in rows]
        for entry in entries:
            check_address(entry.address, insecure)
            if entry.address.startswith("file:") and not address.startswith("file:"):
                raise ValueError(f"{entry.name} would come from this computer")
        return entries
    except (ValueError, TypeError, KeyError) as problem:
        raise InputError(
            f"'{address:.200}' is no catalogue of models ({problem!s:.200}).",
            "See Resources/Models/models.schema.json.",
        ) from None


def _entry(row: dict[str, Any], base: str) -> CatalogueEntry:
    """A row that can be trusted as far as its form goes; files lie beside the catalogue unless it says otherwise.

    Raises:
        ValueError, TypeError: it cannot.
    """
    if not isinstance(row, dict) or "folder" in row:
        raise ValueError("a row is no model")
    check_fields(CatalogueEntry, row)
    entry = CatalogueEntry(**row)
    digits = set("0123456789abcdef")
    if not NAME.fullmatch(entry.name) or not plain_name(entry.file) or not entry.file.endswith(".safetensors"):
        raise ValueError(f"{entry.name!r:.80} or its file has no proper name")
    if len(entry.sha256) != 64 or not set(entry.sha256) <= digits or entry.bytes < 1:
        raise ValueError(f"{entry.name} has no SHA-256 or no size")
    return replace(entry, address=entry.address or urllib.parse.urljoin(base, urllib.parse.quote(entry.file)), run="")
