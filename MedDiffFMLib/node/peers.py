"""Callers that may send to the node."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import InputError
from ..dicom.sources.address import is_title

_CALLER = re.compile(r"(?P<title>[^@]*)(?:@(?P<host>\[[0-9A-Fa-f:]+\]|[^:@\s]+)(?::(?P<port>[0-9]{1,5}))?)?")


@dataclass(frozen=True)
class Caller:
    """One that may send.

    Attributes:
        title: its AE title.
        host: where it must call from; empty for anywhere.
        addresses: the numbers of that host.
        port: on which it takes results; None where it takes none.
    """

    title: str
    host: str = ""
    addresses: frozenset[str] = frozenset()
    port: int | None = None


def parse_caller(text: str) -> Caller:
    """A caller from ``TITLE``, ``TITLE@HOST`` or ``TITLE@HOST:PORT``.

    Raises:
        InputError: something else, or a host that nobody knows.
    """
    match = _CALLER.fullmatch(text)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or not is_title(match["title"]) or (port is not None and not 0 < port < 65536):
        raise InputError(f"{text!r:.80} names no caller.", "Write AE title, AET@HOST, or AET@HOST:PORT.")
    host = (match["host"] or "").strip("[]")
    return Caller(match["title"].strip(), host, _numbers(host) if host else frozenset(), port)


def _numbers(host: str) -> frozenset[str]:
    try:
        return frozenset(plain_number(str(row[4][0])) for row in socket.getaddrinfo(host, None))
    except OSError:
        raise InputError(f"Nobody knows the host {host!r:.80}.", "Give its number, or check the name.") from None


def plain_number(text: str) -> str:
    """The number of a computer in one form: IPv4 stays so where the system wraps it in IPv6."""
    number = ipaddress.ip_address(text.partition("%")[0])
    return str(getattr(number, "ipv4_mapped", None) or number)


def caller_of(callers: Sequence[Caller], title: str, number: str) -> Caller | None:
    """The caller of a title and number; None for a stranger."""
    fitting = [caller for caller in callers if caller.title == title]
    return next((caller for caller in fitting if not caller.host or number in caller.addresses), None)
