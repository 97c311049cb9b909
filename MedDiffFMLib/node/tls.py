"""Encryption of the DICOM network with certificates of both sides (TLS 1.2 and newer)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError


@dataclass(frozen=True)
class Certificates:
    """Files in PEM.

    Attributes:
        own, key: certificate of this node, and its private key.
        trusted: of who signs the others' certificates; a self-signed certificate of each will do.
    """

    own: Path
    key: Path
    trusted: Path

    def server(self) -> ssl.SSLContext:
        """For those who call: each must show a certificate that is trusted.

        Raises:
            InputError: a file cannot be used.
        """
        context = _PatientContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return self._filled(context)

    def client(self) -> ssl.SSLContext:
        """For those whom we call: their certificate must be trusted and name their host."""
        return self._filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _filled(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for what, load in (
            ("certificate or key", lambda: context.load_cert_chain(self.own, self.key, password=_no_password)),
            ("trusted certificates", lambda: context.load_verify_locations(self.trusted)),
        ):
            try:
                load()
            except (OSError, ssl.SSLError) as problem:
                reason = getattr(problem, "reason", None) or problem.strerror or "not in PEM"
                raise InputError(
                    f"The {what} of --tls cannot be used: {reason}.", "Give PEM files; the key without a password."
                ) from None
        return context


def _no_password() -> bytes:
    return b""


class _PatientContext(ssl.SSLContext):
    """A context whose handshake waits for the first reading, in the thread of that connection: where it happens on
    accepting, one stranger who connects and says nothing keeps everybody else out."""

    def wrap_socket(self, sock: Any, *args: Any, **options: Any) -> Any:
        return super().wrap_socket(sock, *args, **{**options, "do_handshake_on_connect": False})
