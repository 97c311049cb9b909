"""DICOM network: C-FIND to find, C-MOVE to have the images sent to a port of ours while we wait."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import InputError, reason_of
from ...core.extras import needed
from ..series import Series, patient_of
from .address import STUDY_KEYS, Address

_PURPOSE = "a pacs:// address"
_STUDY = {"StudyInstanceUID": "", "StudyDate": "", "PatientID": "", "PatientName": ""}
_SERIES = {
    "SeriesInstanceUID": "", "SeriesNumber": "", "SeriesDescription": "", "Modality": "",
    "NumberOfSeriesRelatedInstances": "",
}  # fmt: skip
_PENDING = (0xFF00, 0xFF01)
_UNKNOWN_DESTINATION = 0xA801
_NOT_AUTHORIZED, _CANNOT_STORE = 0x0124, 0xA700
_SECONDS = 60


def find(address: Address) -> list[Series]:
    """Series of the studies that fit."""
    of_study = {key: value for key, value in address.keys.items() if key in STUDY_KEYS}
    of_series = {key: value for key, value in address.keys.items() if key not in STUDY_KEYS}
    found = []
    model = needed("pynetdicom.sop_class", _PURPOSE).StudyRootQueryRetrieveInformationModelFind
    with association(address, [model]) as link:
        wanted = _STUDY | of_study | ({"StudyInstanceUID": address.study} if address.study else {})
        for study in _matches(link, model, "STUDY", wanted, address):
            uid = str(study.get("StudyInstanceUID", ""))
            wanted = (
                _SERIES
                | of_series
                | {"StudyInstanceUID": uid}
                | ({"SeriesInstanceUID": address.series} if address.series else {})
            )
            rows = _matches(link, model, "SERIES", wanted, address)
            found += [_series(study, row) for row in rows]
    return found


def _matches(link: Any, model: Any, level: str, keys: dict[str, str], address: Address) -> list[Any]:
    """Answers to one C-FIND."""
    from pydicom.dataset import Dataset

    query = Dataset()
    query.SpecificCharacterSet = "ISO_IR 192"
    query.QueryRetrieveLevel = level
    for key, value in keys.items():
        setattr(query, key, value)
    found = []
    for status, answer in link.send_c_find(query, model):
        _check_answer(status, address)
        if status.Status in _PENDING and answer is not None:
            found.append(answer)
    return found


def _check_answer(status: Any, address: Address) -> None:
    """Refuse a broken connection and a failure."""
    if not status:
        raise InputError(f"{address.title} broke the connection off.", "Try again, or ask who runs the archive.")
    code = int(status.Status)
    if code == _UNKNOWN_DESTINATION:
        raise InputError(
            f"{address.title} does not know where {address.own_title} is.",
            f"Have it told: AE title {address.own_title}, this computer, port {address.listen}.",
        )
    if code not in (0, *_PENDING) and not 0xB000 <= code < 0xC000:
        comment = str(status.get("ErrorComment", "")) or "no reason given"
        raise InputError(f"{address.title} refuses with {code:04X} ({comment:.80}).", "Ask who runs the archive.")


def _series(study: Any, row: Any) -> Series:
    return Series(
        uid=str(row.get("SeriesInstanceUID", "")),
        study=str(study.get("StudyInstanceUID", "")),
        number=str(row.get("SeriesNumber") or ""),
        description=str(row.get("SeriesDescription") or ""),
        modality=str(row.get("Modality") or ""),
        date=str(study.get("StudyDate") or ""),
        patients=(patient_of(study),) if patient_of(study) else (),
        images=int(row.get("NumberOfSeriesRelatedInstances") or 0),
    )


def fetch(address: Address, series: Series, folder: Path, tell: Callable[[int], None]) -> None:
    """Have the images of a series sent into a folder."""
    from pydicom.dataset import Dataset

    model = needed("pynetdicom.sop_class", _PURPOSE).StudyRootQueryRetrieveInformationModelMove
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID, query.SeriesInstanceUID = "SERIES", series.study, series.uid
    with _waiting(address, series, folder), association(address, [model]) as link:
        for status, _ in link.send_c_move(query, address.own_title, model):
            _check_answer(status, address)
            tell(int(status.get("NumberOfCompletedSuboperations") or 0))


@contextlib.contextmanager
def association(
    address: Address, contexts: Iterable[Any], syntaxes: Sequence[str] | None = None, tls: Any = None
) -> Iterator[Any]:
    """A connection; it is broken off when the block fails.

    Args:
        contexts: SOP classes.
        syntaxes: transfer syntaxes; None for the usual ones.
        tls: an ``ssl.SSLContext``; None for no encryption.

    Raises:
        InputError: nobody is there, or we are refused.
    """
    net = needed("pynetdicom", _PURPOSE)
    entity = _entity(net, address)
    for context in contexts:
        entity.add_requested_context(context, list(syntaxes) if syntaxes else None)
    answered: list[Any] = []  # whether anybody is there: a refusal may end as an aborted association, too
    link = entity.associate(
        address.host,
        address.port,
        ae_title=address.title,
        evt_handlers=[(net.evt.EVT_CONN_OPEN, answered.append)],
        tls_args=None if tls is None else (tls, address.host),
    )
    if not link.is_established:
        cause = "refuses us" if answered else "cannot be reached"
        remedy = f"Have it told of AE title {address.own_title}." if answered else "Check host, port and network."
        raise InputError(f"{address.title} at {address.host}:{address.port} {cause}.", remedy)
    try:
        yield link
        link.release()
    finally:
        if link.is_established:
            link.abort()


def _entity(net: Any, address: Address) -> Any:
    entity = net.AE(ae_title=address.own_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _SECONDS
    entity.connection_timeout = 10
    return entity


@contextlib.contextmanager
def _waiting(address: Address, series: Series, folder: Path) -> Iterator[None]:
    """Take images of the series, from the archive only, while the block runs."""
    net = needed("pynetdicom", _PURPOSE)
    entity = _entity(net, address)
    entity.require_called_aet, entity.require_calling_aet = True, [address.title]
    for context in net.StoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, net.ALL_TRANSFER_SYNTAXES)
    count = 0

    def store(event: Any) -> int:
        nonlocal count
        try:
            if str(event.dataset.get("SeriesInstanceUID")) != series.uid:
                return _NOT_AUTHORIZED
            count += 1  # never a name that somebody else chose
            (folder / f"{count:05d}.dcm").write_bytes(event.encoded_dataset())
        except OSError:
            return _CANNOT_STORE
        return 0

    try:
        server = entity.start_server(("", address.listen), block=False, evt_handlers=[(net.evt.EVT_C_STORE, store)])
    except OSError as problem:
        raise InputError(
            f"Port {address.listen} cannot be waited on: {reason_of(problem)}.", "Choose another: add &listen=PORT."
        ) from None
    try:
        yield
    finally:
        server.shutdown()
