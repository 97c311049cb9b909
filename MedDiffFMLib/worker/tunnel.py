"""Tunnel: messages of the worker protocol through one stream, each after the arrays that it names.

The client and the worker each find their arrays in a private folder of their own computer, as ever; the two ends of a
tunnel carry them over, compressed. An array is a line ``{"type": "array", "file": name, "bytes": n}`` and then
portions, each with its length before it in four bytes, the last one of length 0. This module needs the standard library
only.
"""

from __future__ import annotations

import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from ..core.errors import MedDiffFMError, OutputError, reason_of
from .protocol import MAXIMUM_LINE, PrivateFolder, ProtocolError, decode, encode, error_fields

PORTION = 1 << 20
"""Bytes of an array that are compressed at a time."""
TELL_SECONDS = 0.2
_LEVEL = 1  # the fastest: CT shrinks to about half, at ten times the pace of most networks
_FINAL = ("result", "error", "cancelled")


class Tunnel:
    """One end.

    Args:
        source, sink: of messages on this computer.
        wire_in, wire_out: from and to the other end.
        folder: of the arrays here; None where the client's hello names it.
    """

    def __init__(
        self,
        source: IO[bytes],
        sink: IO[bytes],
        wire_in: IO[bytes],
        wire_out: IO[bytes],
        folder: PrivateFolder | None = None,
    ) -> None:
        self._source, self._sink, self._wire_in, self._wire_out = source, sink, wire_in, wire_out
        self._folder, self._near = folder, folder is None
        self._arrived: list[str] = []
        self._writing = threading.Lock()

    def outward(self) -> None:
        """Messages of this computer to the other end, until there are no more.

        Raises:
            MedDiffFMError: what is said is no message, or an array cannot be read.
            OSError: the other end is gone.
        """
        for line in _lines(self._source):
            message = decode(line)
            if self._near and message["type"] == "hello":
                self._folder = PrivateFolder.existing(str(message.pop("folder", "")))
            for name in _files(message):
                self._send_array(name, message.get("id"))
            if not self._near:
                self._forget(message)
            _write(self._wire_out, encode(message.pop("type"), **message))

    def inward(self) -> None:
        """Pass on what the other end sends to this computer, until there is no more.

        Raises:
            MedDiffFMError: what came is no message, or an array cannot be written.
        """
        began = not self._near
        for line in _lines(self._wire_in):
            try:
                message = decode(line)
            except ProtocolError:
                if began:
                    raise
                print(line, file=sys.stderr)  # a greeting of the shell there
                continue
            began = True
            if message["type"] == "array":
                self._take_array(message)
                continue
            if not self._near and message["type"] == "hello":
                message["folder"] = str(self._own_folder().path)
            self._say(message.pop("type"), **message)

    def fail(self, problem: MedDiffFMError) -> None:
        """Tell the client that nothing goes any more."""
        line = encode("error", id=None, **error_fields(problem))
        _write(self._sink if self._near else self._wire_out, line)

    def _say(self, kind: str, /, **fields: Any) -> None:
        with self._writing:
            _write(self._sink, encode(kind, **fields))

    def _own_folder(self) -> PrivateFolder:
        if self._folder is None:
            raise ProtocolError("An array came before the hello.")
        return self._folder

    def _send_array(self, name: str, number: Any) -> None:
        folder = self._own_folder()
        path, told = folder.file(name), 0.0
        try:
            size = path.stat().st_size
            with path.open("rb") as stream:
                _write(self._wire_out, encode("array", file=name, bytes=size))
                while portion := stream.read(PORTION):
                    packed = zlib.compress(portion, _LEVEL)
                    _write(self._wire_out, len(packed).to_bytes(4, "big") + packed)
                    if self._near and time.monotonic() - told > TELL_SECONDS:
                        told = time.monotonic()
                        percent = round(100 * stream.tell() / max(size, 1))
                        stage = f"sending ({percent} %)"
                        self._say("progress", id=number, fraction=0.0, stage=stage, seconds_left=None)
        except FileNotFoundError:
            raise ProtocolError(f"There is no array {name!r}.", "Run again.") from None
        _write(self._wire_out, bytes(4))

    def _take_array(self, message: dict[str, Any]) -> None:
        folder = self._own_folder()
        path, size, got = folder.file(message.get("file")), message.get("bytes"), 0
        try:
            with path.open("wb") as stream:
                for portion in _portions(self._wire_in):
                    got += stream.write(portion)
        except OSError as problem:
            raise OutputError(
                f"An array cannot be written to {folder.path}: {reason_of(problem)}.",
                "Free space there, or set TMPDIR to a folder with room.",
            ) from None
        if got != size:
            raise ProtocolError(f"The array {path.name} has {got} bytes in place of {size}.", "Run again.")
        self._arrived.append(path.name)

    def _forget(self, message: dict[str, Any]) -> None:
        """Delete the arrays of a run that is over: its client deletes its own alone."""
        if message["type"] in _FINAL:
            for name in (*self._arrived, *_files(message)):
                self._own_folder().discard(name)
            self._arrived.clear()


def run_in_thread(tunnel: Tunnel, direction: Callable[[], None], ended: Callable[[], None]) -> threading.Thread:
    """Carry one direction in the background; ``ended`` is called afterwards, whatever happened."""

    def carry() -> None:
        carried(tunnel, direction)
        ended()

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    return thread


def carried(tunnel: Tunnel, direction: Callable[[], None]) -> None:
    """Carry one direction to its end; what goes wrong is told, and an end that is gone is an end like another."""
    try:
        direction()
    except MedDiffFMError as problem:
        tunnel.fail(problem)
    except (OSError, ValueError):
        pass


def _files(message: dict[str, Any]) -> list[str]:
    """Names of the arrays that a message speaks of."""
    groups = [message.get(name) for name in ("inputs", "volumes")]
    records = [record for group in groups if isinstance(group, dict) for record in group.values()]
    records.append(message.get("whole"))
    return [record["file"] for record in records if isinstance(record, dict) and isinstance(record.get("file"), str)]


def _lines(stream: IO[bytes]) -> Iterator[str]:
    while line := stream.readline(MAXIMUM_LINE + 1):
        if len(line) > MAXIMUM_LINE:
            raise ProtocolError(f"A line is longer than {MAXIMUM_LINE} bytes.")
        if line.strip():
            yield line.decode("utf-8", "replace").rstrip("\r\n")


def _portions(wire: IO[bytes]) -> Iterator[bytes]:
    """The parts of one array, of at most PORTION bytes each."""
    while length := int.from_bytes(_exactly(wire, 4), "big"):
        if length > 2 * PORTION:
            raise ProtocolError("A part of an array is too long.")
        packed, unpacker = _exactly(wire, length), zlib.decompressobj()
        try:
            portion = unpacker.decompress(packed, PORTION)
        except zlib.error:
            raise ProtocolError("An array came damaged.", "Run again.") from None
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise ProtocolError("An array came damaged.", "Run again.")
        yield portion


def _exactly(wire: IO[bytes], count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = wire.read(count - len(data))
        if not more:
            raise ProtocolError("The connection ended within an array.", "Run again.")
        data += more
    return data


def _write(stream: IO[bytes], data: bytes) -> None:
    stream.write(data)
    stream.flush()
