"""Address of a worker on another computer, and the OpenSSH command that reaches it. Keys, hosts and their aliases are
OpenSSH's own."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from ..core.errors import DependencyError, InputError

SCHEME = "ssh://"
EXAMPLE = "ssh://user@host, ssh://host:2222 or ssh://user@host/home/user/env/bin/meddifffm"
PROGRAM = "meddifffm"
CONNECT_SECONDS = 15
SILENT_SECONDS, TRIES = 15, 4
"""A connection over which nothing came back so often is lost."""


@dataclass(frozen=True)
class SshAddress:
    """Computer and program with which a worker is started.

    Attributes:
        host: name or alias that OpenSSH knows.
        user, port: None where OpenSSH decides.
        program: ``meddifffm`` there, or the Python of its environment.
    """

    host: str
    user: str | None = None
    port: int | None = None
    program: str = PROGRAM


def is_address(text: str) -> bool:
    """Whether a text means another computer, and not a program of this one."""
    return text.startswith(SCHEME)


def parse_address(text: str) -> SshAddress:
    """Address from ``ssh://[user@]host[:port][/path/of/meddifffm]``.

    Raises:
        InputError: anything else, or with a password.
    """
    try:
        parts = urlsplit(text)
        host, user, port = parts.hostname, parts.username, parts.port
    except ValueError:
        host = user = port = None
    plain = host is not None and not any(part.startswith("-") for part in (host, user or ""))
    if not (is_address(text) and plain) or parts.query or parts.fragment:
        raise InputError(f"{text!r:.80} is no address of a worker.", f"Write it as {EXAMPLE}.")
    if parts.password is not None:
        raise InputError("An address holds no password.", "Let OpenSSH have a key: ssh-copy-id user@host.")
    assert host is not None
    return SshAddress(host, user, port, unquote(parts.path) if parts.path.strip("/") else PROGRAM)


def ssh_command(address: SshAddress) -> list[str]:
    """Program and arguments that start a worker there; asks nothing, since nobody could answer.

    Raises:
        DependencyError: there is no OpenSSH client.
    """
    ssh = shutil.which("ssh")
    if ssh is None:
        raise DependencyError("There is no ssh program.", "Install the OpenSSH client of this system.")
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": CONNECT_SECONDS,
        "ServerAliveInterval": SILENT_SECONDS,
        "ServerAliveCountMax": TRIES,
    }
    command = [ssh, "-T", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
    if address.port is not None:
        command += ["-p", str(address.port)]
    target = address.host if address.user is None else f"{address.user}@{address.host}"
    return [*command, target, _remote_command(address.program)]


def _remote_command(program: str) -> str:
    """Command that the other computer's shell is given."""
    is_python = PurePosixPath(program).name.startswith("python")
    package = __name__.rpartition(".")[0]
    return shlex.join([program, "-u", "-m", f"{package}.far_end"] if is_python else [program, "worker"])
