"""Service class provider of the node: C-ECHO and C-STORE for callers that are known, and nothing for anybody else."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import InputError, log_defect, reason_of
from ..core.extras import needed
from ..dicom.out.shell import MODEL_NAME
from ..imaging.modality import CT, MR
from .arrivals import Arrival, Arrivals, as_tags, key_of
from .audit import Audit
from .peers import Caller, caller_of, plain_number
from .rules import TAGS

PURPOSE = "meddifffm listen"
SOP_CLASSES = {CT: "1.2.840.10008.5.1.4.1.1.2", MR: "1.2.840.10008.5.1.4.1.1.4"}
"""Modality -> images of it that a volume is made of."""
SUCCESS, OUT_OF_RESOURCES, NOT_AUTHORIZED, DUPLICATE = 0x0000, 0xA700, 0x0124, 0x0111
DOES_NOT_MATCH, NOT_UNDERSTOOD = 0xA900, 0xC000
_REJECTED = {"title": (0x01, 0x01, 0x03), "called": (0x01, 0x01, 0x07)}
_MOST_PDU = 1 << 20
"""Bytes of one message that anybody may make us hold; what we ask for is less."""
_PDU, _HELLO_SECONDS, _SILENT_SECONDS, _STALLED_SECONDS = 1 << 17, 20, 300, 60
_FAREWELL_SECONDS = 5.0
_UID = re.compile(r"[0-9.]{1,64}")
_DEFLATED = "1.2.840.10008.1.2.1.99"
Keep = Callable[[bytes, str, dict[str, Any]], None]


@dataclass(frozen=True)
class Limits:
    """Limits of what the node takes.

    Attributes:
        image_bytes: of one image.
        images: of one series.
        queue_bytes: of everything that waits.
        free_bytes: that stay free on the disk.
        connections: at the same time.
    """

    image_bytes: int = 256 << 20
    images: int = 10_000
    queue_bytes: int = 100 << 30
    free_bytes: int = 2 << 30
    connections: int = 20


class Usage:
    """Bytes of the images that wait."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Note that so many came; negative for those that went."""
        with self._lock:
            self.bytes += count


class Refusal(Exception):
    """A C-STORE that fails.

    Args:
        status: of the answer.
        reason: for the answer's comment and the audit log.
        keep: whether the image is kept aside.
    """

    def __init__(self, status: int, reason: str, keep: bool = False) -> None:
        super().__init__(reason)
        self.status, self.reason, self.keep = status, reason, keep


class Receiver:
    """Provider that answers callers.

    Args:
        arrivals: where images go.
        keep: puts an image aside, with the reason and what is known of it.
        usage: of the queue.
        names: whether arrivals have the patient.
    """

    def __init__(
        self,
        title: str,
        callers: Sequence[Caller],
        arrivals: Arrivals,
        limits: Limits,
        audit: Audit,
        keep: Keep,
        usage: Usage,
        names: bool = False,
    ) -> None:
        self._title, self._callers, self._arrivals, self._limits = title, callers, arrivals, limits
        self._audit, self._keep, self._usage, self._names = audit, keep, usage, names
        self._welcome: set[int] = set()
        self.port = 0

    @contextlib.contextmanager
    def listening(self, bind: str, port: int, modalities: Collection[str], tls: Any = None) -> Iterator[None]:
        """Answer while the block runs.

        Args:
            bind: number of the network card; empty for all.
            modalities: whose images are taken.
            tls: an ``ssl.SSLContext``; None for no encryption.

        Raises:
            InputError: the port cannot be had.
            DependencyError: pynetdicom is missing.
        """
        net = needed("pynetdicom", PURPOSE)
        entity = net.AE(ae_title=self._title)
        entity.maximum_associations, entity.maximum_pdu_size = self._limits.connections, _PDU
        entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = _HELLO_SECONDS, 60, _SILENT_SECONDS
        entity.require_called_aet, entity.require_calling_aet = True, [caller.title for caller in self._callers]
        entity.add_supported_context("1.2.840.10008.1.1")  # verification
        for modality in modalities:
            entity.add_supported_context(SOP_CLASSES[modality], readable_syntaxes(net))
        evt = net.evt
        handlers = [
            (evt.EVT_REQUESTED, self._requested), (evt.EVT_REJECTED, self._full), (evt.EVT_PDU_RECV, self._message),
            (evt.EVT_CONN_CLOSE, self._closed), (evt.EVT_C_ECHO, self._echo), (evt.EVT_C_STORE, self._store),
        ]  # fmt: skip
        try:
            server = entity.make_server(
                (bind, port), ssl_context=tls, evt_handlers=handlers, server_class=_server_class(self._may_knock)
            )
        except OSError as problem:
            raise InputError(
                f"Port {port} cannot be waited on: {reason_of(problem)}.", "Choose another with --port."
            ) from None
        self.port = server.server_address[1]
        with _served(server):
            yield

    # Associations

    def _may_knock(self, address: str) -> bool:
        """Whether anybody may call from a computer."""
        number = plain_number(address)
        if any(not caller.host or number in caller.addresses for caller in self._callers):
            return True
        self._audit.write("refused", address=number, reason="address of a stranger")
        return False

    def _requested(self, event: Any) -> None:
        """Let in who is known, and refuse everybody else before a word is exchanged."""
        link, request = event.assoc, event.assoc.requestor.primitive
        title, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        number = plain_number(link.requestor.address)
        if caller_of(self._callers, title, number) is None:
            known = any(caller.title == title for caller in self._callers)
            reason, code = f"{'address' if known else 'AE title'} of a stranger", _REJECTED["title"]
        elif called != self._title:
            reason, code = f"asks for {called!r}", _REJECTED["called"]
        else:
            self._welcome.add(id(link))
            return
        link.acse.send_reject(*code)
        link.kill()
        self._audit.write("refused", caller=title, address=number, reason=reason)

    def _full(self, event: Any) -> None:
        self._audit.write("refused", **_who(event.assoc), reason="too many connections")

    def _message(self, event: Any) -> None:
        """A release is written down before it is answered: who hears the answer may forget the images."""
        if type(event.pdu).__name__ == "A_RELEASE_RQ" and id(event.assoc) in self._welcome:
            self._arrivals.released(id(event.assoc))

    def _closed(self, event: Any) -> None:
        link = event.assoc
        if id(link) in self._welcome:
            self._welcome.discard(id(link))
            self._arrivals.closed(id(link))
        elif link.requestor.primitive is None:  # no DICOM, no certificate, or nothing at all
            self._audit.write("refused", address=plain_number(link.requestor.address), reason="did not say who it is")

    def _echo(self, event: Any) -> int:
        self._audit.write("echo", **_who(event.assoc))
        return SUCCESS

    # Images

    def _store(self, event: Any) -> Any:
        """Answer with success what is on the disk, and with a status and a sentence what is not taken."""
        from pydicom.dataset import Dataset

        content, who = b"", _who(event.assoc)
        try:
            if id(event.assoc) not in self._welcome:
                raise Refusal(NOT_AUTHORIZED, "a stranger")
            content = event.encoded_dataset()
            self._take(event, content, who)
            return SUCCESS
        except Refusal as problem:
            status, reason, keep = problem.status, problem.reason, problem.keep
        except OSError as problem:
            status, reason, keep = OUT_OF_RESOURCES, f"disk: {reason_of(problem)}", False
        except Exception as problem:  # nothing that is sent may stop the node
            status, reason, keep = NOT_UNDERSTOOD, f"unexpected: {type(problem).__name__}", True
            log_defect(problem)
        self._audit.write(
            "refused image", **who, instance=str(event.request.AffectedSOPInstanceUID), status=f"{status:04X}",
            reason=reason,
        )  # fmt: skip
        if keep and content:
            with contextlib.suppress(OSError):
                self._keep(content, reason, who)
        answer = Dataset()
        answer.Status, answer.ErrorComment = status, reason[:64]
        return answer

    def _take(self, event: Any, content: bytes, who: dict[str, str]) -> None:
        self._check_room(len(content))
        instance = str(event.request.AffectedSOPInstanceUID)
        arrival = self._arrival(event, instance, who)
        if self._arrivals.count(arrival.key) >= self._limits.images:
            raise Refusal(OUT_OF_RESOURCES, f"a series may have {self._limits.images} images")
        try:
            if self._arrivals.take(id(event.assoc), arrival, instance, content):
                self._usage.add(len(content))
        except ValueError as problem:
            raise Refusal(DUPLICATE, str(problem), keep=True) from None

    def _check_room(self, size: int) -> None:
        limits = self._limits
        if size > limits.image_bytes:
            raise Refusal(OUT_OF_RESOURCES, f"an image may have {limits.image_bytes >> 20} MB")
        if self._usage.bytes + size > limits.queue_bytes:
            raise Refusal(OUT_OF_RESOURCES, "the queue is full")
        if shutil.disk_usage(self._arrivals.folder).free - size < limits.free_bytes:
            raise Refusal(OUT_OF_RESOURCES, "the disk is full")

    def _arrival(self, event: Any, instance: str, who: dict[str, str]) -> Arrival:
        """The series of an image, from its header.

        Raises:
            Refusal: damaged, of this software, or another one than was announced.
        """
        try:
            dataset = event.dataset
            uids = [str(dataset.get(name) or "") for name in ("StudyInstanceUID", "SeriesInstanceUID")]
            inside = [str(dataset.get(name) or "") for name in ("SOPInstanceUID", "SOPClassUID")]
            tags = as_tags(dataset, TAGS, who["caller"])
            patient = {name: str(dataset.get(name) or "") for name in ("PatientID", "PatientName")}
            ours = _is_ours(dataset)
        except Exception:  # a parser of foreign data fails in many ways
            raise Refusal(NOT_UNDERSTOOD, "the header cannot be read", keep=True) from None
        if ours:  # an archive that sends on whatever it stores would have its results worked on for ever
            raise Refusal(NOT_AUTHORIZED, f"it was made by {MODEL_NAME}")
        if not all(_UID.fullmatch(uid) for uid in (*uids, *inside)):
            raise Refusal(NOT_UNDERSTOOD, "UIDs are missing or no UIDs", keep=True)
        if inside != [instance, str(event.request.AffectedSOPClassUID)]:
            raise Refusal(DOES_NOT_MATCH, "it is another object than was announced", keep=True)
        study, series = uids
        key = key_of(who["caller"], series)
        known = patient if self._names else {}
        return Arrival(key, who["caller"], who["address"], study, series, dict(tags), known)


def readable_syntaxes(net: Any) -> list[str]:
    """Transfer syntaxes whose pixels can be decoded here."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UncompressedTransferSyntaxes

    plain = [str(uid) for uid in UncompressedTransferSyntaxes if uid != _DEFLATED]
    readable = []
    for uid in net.ALL_TRANSFER_SYNTAXES:
        with contextlib.suppress(NotImplementedError):
            if uid not in (*plain, _DEFLATED) and get_decoder(uid).is_available:
                readable.append(str(uid))
    return [*plain, *readable]


def _who(link: Any) -> dict[str, str]:
    number = plain_number(link.requestor.address)
    return {"caller": link.requestor.primitive.calling_ae_title.strip(), "address": number}


def _is_ours(dataset: Any) -> bool:
    """Whether an image says that this software took part in it."""
    names = [dataset.get("ManufacturerModelName")]
    names += [row.get("ManufacturerModelName") for row in dataset.get("ContributingEquipmentSequence") or []]
    return MODEL_NAME in names


@contextlib.contextmanager
def _served(server: Any) -> Iterator[None]:
    """Serve in a thread of its own; connections that are open at the end have some seconds, then are broken off."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        links = server.active_associations
        server.shutdown()
        end = time.monotonic() + _FAREWELL_SECONDS
        for link in links:
            link.join(max(0.0, end - time.monotonic()))
            if link.is_established:
                link.abort()
        thread.join()


def _server_class(is_welcome: Callable[[str], bool]) -> Any:
    """pynetdicom's server with patience that ends, and messages of a measure.

    Args:
        is_welcome: whether to listen to a computer at all.
    """
    from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

    class Handler(RequestHandler):
        def _create_association(self) -> Any:
            link = super()._create_association()
            connection: Any = link.dul.socket
            receive = connection.recv

            def measured(count: int) -> bytearray:
                if count > _MOST_PDU:
                    connection.socket.shutdown(socket.SHUT_RDWR)
                    raise OSError("a message beyond all measure")
                return receive(count)

            connection.recv = measured
            return link

    class Server(ThreadedAssociationServer):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "request_handler": Handler})

        def verify_request(self, request: Any, client_address: Any) -> bool:
            return is_welcome(client_address[0])

        def get_request(self) -> Any:
            connection, number = super().get_request()
            connection.settimeout(_STALLED_SECONDS)
            return connection, number

        def shutdown(self) -> None:
            with contextlib.suppress(ValueError):  # is not in the list of an entity that did not start it
                super().shutdown()

    return Server
