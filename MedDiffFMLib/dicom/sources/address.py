"""Addresses of archives: ``dicomweb://host/path`` and ``pacs://AET@host:port``. Imports the standard library only."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

from ...core.errors import InputError

STUDY_KEYS = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "StudyID", "StudyDescription", "AccessionNumber", "ModalitiesInStudy", "ReferringPhysicianName",
)  # fmt: skip
SERIES_KEYS = ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "BodyPartExamined", "ProtocolName")
OWN_KEYS = ("aet", "listen")
"""Of pacs:// addresses: our AE title, and the port on which we wait for the images."""
SCHEMES = {"dicomweb": "https", "dicomweb+http": "http", "pacs": ""}
TARGET_SCHEMES = (*SCHEMES, "pacs+tls")
"""Of addresses that results are sent to."""
OWN_TITLE, LISTEN_PORT, DICOM_PORT = "MEDDIFFFM", 11112, 104
_UID = re.compile(r"[0-9.]{1,64}")
_TITLE = re.compile(r"[ -\[\]-~]{1,16}")


@dataclass(frozen=True)
class Address:
    """Archive to ask, and what to ask it for.

    Attributes:
        text: as it was given.
        scheme: key of SCHEMES.
        title: AE title of the archive; empty for DICOMweb.
        path: of the service, without slashes around it; empty for pacs://.
        study, series: UIDs; empty where they are to be found by the keys.
        keys: what to look for, by DICOM keyword.
        own_title, listen: who we are on the DICOM network.
    """

    text: str
    scheme: str
    host: str
    port: int | None
    title: str
    path: str
    study: str
    series: str
    keys: dict[str, str]
    own_title: str = OWN_TITLE
    listen: int = LISTEN_PORT

    def __str__(self) -> str:
        return self.text

    @property
    def service(self) -> str:
        """URL of a DICOMweb service."""
        port = "" if self.port is None else f":{self.port}"
        return f"{SCHEMES[self.scheme]}://{self.host}{port}/{self.path}".rstrip("/")

    def of_series(self, study: str, series: str) -> str:
        """Address of one series, without what it was found by."""
        port = "" if self.port is None else f":{self.port}"
        if self.scheme == "pacs":
            return f"pacs://{self.title}@{self.host}{port}/{study}/{series}"
        path = f"/{self.path}" if self.path else ""
        return f"{self.scheme}://{self.host}{port}{path}/studies/{study}/series/{series}"


def address_or_path(text: str) -> Address | Path:
    """Parse what a user gives as a source."""
    scheme = text.partition("://")[0].lower()
    return parse_address(text) if "://" in text and scheme in SCHEMES else Path(text)


def parse_address(text: str) -> Address:
    """An address in its parts.

    Raises:
        InputError: with an example of what is meant.
    """
    remedy = "Write dicomweb://HOST/PATH/studies/UID, dicomweb://HOST/PATH?PatientID=ID or pacs://AET@HOST:PORT?PatientID=ID."
    parts, scheme, host, port = _split(text, tuple(SCHEMES), remedy)
    found = dict(parse_qsl(parts.query, keep_blank_values=True))
    keys = {key: value for key, value in found.items() if key not in OWN_KEYS}
    unknown = [key for key in keys if key not in (*STUDY_KEYS, *SERIES_KEYS)]
    if unknown or (scheme != "pacs" and set(found) & set(OWN_KEYS)):
        known = ", ".join([*STUDY_KEYS, *SERIES_KEYS, *(OWN_KEYS if scheme == "pacs" else ())])
        raise InputError(
            f"The address asks for {(unknown or sorted(set(found) & set(OWN_KEYS)))[0]!r:.80}.", f"Known are: {known}."
        )
    is_pacs = scheme == "pacs"
    path, study, series = _pacs_path(parts.path) if is_pacs else _web_path(parts.path)
    study, series = study or keys.pop("StudyInstanceUID", ""), series or keys.pop("SeriesInstanceUID", "")
    for uid in (study, series):
        if uid and not _UID.fullmatch(uid):
            raise InputError(f"{uid!r:.80} in the address is no UID.", remedy)
    title = parts.username or ""
    if is_pacs and not _TITLE.fullmatch(title):
        raise InputError(f"'{text:.200}' does not say the AE title of the archive.", remedy)
    if not study and not any(keys.values()):
        raise InputError(
            f"'{text:.200}' asks for everything in the archive.", "Say which study: add ?PatientID=ID or a UID."
        )
    own, listen = found.get("aet", OWN_TITLE), found.get("listen", str(LISTEN_PORT))
    if not _TITLE.fullmatch(own) or not listen.isdecimal() or not 0 <= int(listen) < 65536:
        raise InputError(
            "aet or listen in the address makes no sense.", "Give an AE title of 1 to 16 letters, and a port."
        )
    port = DICOM_PORT if is_pacs and port is None else port
    return Address(text, scheme, host, port, title, path, study, series, keys, own, int(listen))


def parse_target(text: str) -> Address:
    """Address that results are sent to.

    Raises:
        InputError: with an example of what is meant.
    """
    remedy = "Write pacs://AET@HOST:PORT, pacs+tls://AET@HOST:PORT or dicomweb://HOST/PATH."
    parts, scheme, host, port = _split(text, TARGET_SCHEMES, remedy)
    title, web = parts.username or "", scheme.startswith("dicomweb")
    if parts.query or (not web and (not is_title(title) or port is None or parts.path.strip("/"))):
        raise InputError(f"'{text:.200}' is no address to send to.", remedy)
    return Address(text, scheme, host, port, title, parts.path.strip("/") if web else "", "", "", {})


def is_title(text: str) -> bool:
    """Whether a text can be an AE title."""
    return _TITLE.fullmatch(text) is not None and bool(text.strip())


def _split(text: str, schemes: Collection[str], remedy: str) -> tuple[SplitResult, str, str, int | None]:
    """Parts, scheme, host and port of an address.

    Raises:
        InputError: it names no host, is of another scheme, or holds a password.
    """
    try:
        parts = urlsplit(text)
        host, port, scheme = parts.hostname or "", parts.port, parts.scheme.lower()
    except ValueError:
        raise InputError(f"'{text:.200}' is no address.", remedy) from None
    if not host or scheme not in schemes:
        raise InputError(f"'{text:.200}' names no host.", remedy)
    if parts.password is not None or (not scheme.startswith("pacs") and parts.username):
        raise InputError(
            "A password stands in the address, where others can read it.", "Put it into ~/.netrc, and leave it out."
        )
    return parts, scheme, host, port


def _pacs_path(path: str) -> tuple[str, str, str]:
    """/STUDY/SERIES."""
    uids = [part for part in path.split("/") if part] + ["", ""]
    return "", uids[0], uids[1]


def _web_path(path: str) -> tuple[str, str, str]:
    """/service/studies/STUDY/series/SERIES."""
    service, _, rest = path.partition("/studies/")
    study, _, series = rest.partition("/series/")
    return service.strip("/"), study.strip("/"), series.strip("/")
