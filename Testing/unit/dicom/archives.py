"""Archives that tests start: Orthanc where it is installed, and an archive out of pynetdicom."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom

TITLE = "ARCHIVE"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MISSING = "Orthanc with its DICOMweb plugin is not installed: apt-get install orthanc orthanc-dicomweb"


def free_ports(count: int) -> list[int]:
    """Ports of this computer that nobody waits on, below those that systems give to whoever asks for any."""
    ports: list[int] = []
    while len(ports) < count:
        port = secrets.choice(range(20000, 32000))
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            ports += [] if port in ports else [port]
    return ports


@contextlib.contextmanager
def nobodys_port() -> Iterator[int]:
    """A port on which nobody can wait while the block runs."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one.getsockname()[1]


@dataclass
class Orthanc:
    """A server with its ports; ``listen`` is where it believes MEDDIFFFM to be."""

    web: int
    dicom: int
    listen: int

    def send(self, file: Path) -> None:
        """Put a file into it."""
        urllib.request.urlopen(f"http://127.0.0.1:{self.web}/instances", file.read_bytes(), timeout=20).read()


def orthanc_program() -> str | None:
    """Where Debian puts it, with the plugin; None where either is missing."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    return program if PLUGIN.exists() else None


@contextlib.contextmanager
def orthanc(program: str, folder: Path, **more: object) -> Iterator[Orthanc]:
    """A server of its own, empty, on this computer only; ended after the block.

    Args:
        more: settings.
    """
    web, dicom, listen = free_ports(3)
    us = ["MEDDIFFFM", "127.0.0.1", listen]
    settings = {
        "Name": "test", "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
        "HttpPort": web, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomAet": TITLE, "DicomPort": dicom, "DicomCheckCalledAet": True, "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowMove": True, "DicomModalities": {"us": us, "meddifffm": us},
        "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, **more,
    }  # fmt: skip
    (folder / "storage").mkdir()
    (folder / "orthanc.json").write_text(json.dumps(settings))
    process = subprocess.Popen(
        [program, str(folder / "orthanc.json")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:  # it says when it is up, so nothing has to be asked again and again
            said.append(line)
            if "Orthanc has started" in line:
                break
        else:
            raise AssertionError("".join(said))
        yield Orthanc(web, dicom, listen)
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextlib.contextmanager
def small_archive(files: list[Path], listen: int) -> Iterator[int]:
    """C-FIND and C-MOVE of pynetdicom over some files; gives its port."""
    from pynetdicom import AE, StoragePresentationContexts, evt
    from pynetdicom.sop_class import (
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelMove,
    )

    held = [pydicom.dcmread(file) for file in files]

    def fits(dataset: pydicom.Dataset, query: pydicom.Dataset) -> bool:
        keys = ("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "SeriesNumber")
        return all(not query.get(key) or str(query.get(key)) == str(dataset.get(key)) for key in keys)

    def find(event: evt.Event):
        query = event.identifier
        unique = "StudyInstanceUID" if query.QueryRetrieveLevel == "STUDY" else "SeriesInstanceUID"
        for uid in sorted({str(dataset.get(unique)) for dataset in held if fits(dataset, query)}):
            members = [dataset for dataset in held if str(dataset.get(unique)) == uid and fits(dataset, query)]
            answer = pydicom.Dataset()
            for element in query:
                if element.keyword in members[0]:
                    answer[element.keyword] = members[0][element.keyword]
            answer.QueryRetrieveLevel = query.QueryRetrieveLevel
            if query.QueryRetrieveLevel == "SERIES":
                answer.NumberOfSeriesRelatedInstances = len(members)
            yield 0xFF00, answer

    def move(event: evt.Event):
        if event.move_destination != "MEDDIFFFM":
            yield None, None
            return
        yield "127.0.0.1", listen
        wanted = [dataset for dataset in held if fits(dataset, event.identifier)]
        yield len(wanted)
        for dataset in wanted:
            yield 0xFF00, dataset

    entity = AE(ae_title=TITLE)
    entity.require_called_aet = True
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    entity.requested_contexts = StoragePresentationContexts[:128]
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_C_MOVE, move)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
