"""Scans out of archives: Orthanc over DICOMweb and the DICOM network, and an archive of pynetdicom's."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import Cancelled, InputError
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.dicom.out.export import written
from MedDiffFMLib.dicom.sources.address import Address, address_or_path, parse_address
from MedDiffFMLib.dicom.sources.archive import fetched, listed
from MedDiffFMLib.imaging.io import read_volume
from Testing.harness.geometries import GEOMETRIES, orthogonal
from Testing.unit.imaging.test_dicom import write_series

from .archives import MISSING, TITLE, free_ports, nobodys_port, orthanc, orthanc_program, small_archive
from .test_series import ABOVE, LUNG, SOFT
from .toy import export_of, scan

pytest.importorskip("pynetdicom", reason="the extra [pacs] is not installed")
pytest.importorskip("dicomweb_client", reason="the extra [pacs] is not installed")
DETAILS = {"StudyDate": "20260102", "PatientName": "Grün^Anna", "SpecificCharacterSet": "ISO_IR 100", "StudyID": "1"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A study of two series."""
    folder = tmp_path_factory.mktemp("study") / "ct"
    return [
        *write_series(folder, prefix="a", **LUNG, **DETAILS),
        *write_series(folder, ABOVE, prefix="b", **SOFT, **DETAILS),
    ]


@pytest.fixture(scope="module", params=["orthanc-web", "orthanc", "pynetdicom"])
def base(request: pytest.FixtureRequest, files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an archive without a question, and what to end it with."""
    if request.param == "pynetdicom":
        (listen,) = free_ports(1)
        with small_archive(files, listen) as port:
            yield f"pacs://{TITLE}@127.0.0.1:{port}?listen={listen}"
        return
    program = orthanc_program()
    if program is None:
        pytest.skip(MISSING)
    with orthanc(program, tmp_path_factory.mktemp("orthanc")) as server:
        for file in files:
            server.send(file)
        if request.param == "orthanc":
            yield f"pacs://{TITLE}@127.0.0.1:{server.dicom}?listen={server.listen}"
        else:
            yield f"dicomweb+http://127.0.0.1:{server.web}/dicom-web?"


def asking(base: str, **keys: str) -> Address:
    return parse_address("&".join([base, *(f"{key}={value}" for key, value in keys.items())]))


def left_behind() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"meddifffm-by-*-{os.getpid()}-*/series[45]"))


@pytest.mark.slow
def test_series_are_found_and_fetched(base: str, files: list[Path]) -> None:
    found = listed(asking(base, PatientID="17"))
    assert [(s.number, s.modality, s.images, s.description, s.patients) for s in found] == [
        ("4", "CT", 8, "Lung", ("17",)), ("5", "CT", 6, "Soft tissue", ("17",)),
    ]  # fmt: skip
    assert [s.number for s in listed(asking(base, StudyInstanceUID="1.2.3", SeriesNumber="5"))] == ["5"]
    told = []
    with fetched(asking(base, PatientID="17"), found[1], lambda event: told.append(event.fraction)) as folder:
        volume = read_volume(folder)
        names = {str(pydicom.dcmread(file).PatientName) for file in folder.iterdir()}
    assert names == {"Grün^Anna"} and max(told) == 1
    expected = read_volume(next(file for file in files if file.name.startswith("b")))
    assert np.array_equal(volume.voxels, expected.voxels) and np.array_equal(volume.ijk_to_ras, expected.ijk_to_ras)
    assert left_behind() == []


@pytest.mark.slow
def test_what_is_not_there_is_said(base: str) -> None:
    with pytest.raises(InputError, match="has nothing for"):
        listed(asking(base, PatientID="99"))


@pytest.mark.slow
def test_cancelled_while_images_arrive(base: str) -> None:
    found = listed(asking(base, PatientID="17"))
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled), fetched(asking(base, PatientID="17"), found[0], cancel=token):
        pytest.fail("it was cancelled")
    assert left_behind() == []


@pytest.mark.slow
def test_the_command_line_takes_an_address(base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = f"{base}&PatientID=17"
    assert main(["series", source, "--json"]) == 0
    assert [row["number"] for row in json.loads(capsys.readouterr().out)["series"]] == ["4", "5"]
    assert main(["series", source, "--series", "5", "-o", str(tmp_path / "soft"), "--quiet"]) == 0
    assert len(list((tmp_path / "soft").iterdir())) == 6
    capsys.readouterr()
    assert main(["radiograph", source]) == 2
    assert "2 series that could be meant: 4 'Lung' (CT, 8 images); 5 'Soft tissue'" in capsys.readouterr().err


@pytest.mark.slow
def test_nobody_there(files: list[Path]) -> None:
    with nobodys_port() as port:
        for source in (
            f"pacs://{TITLE}@127.0.0.1:{port}?PatientID=17",
            f"dicomweb+http://127.0.0.1:{port}?PatientID=17",
        ):
            with pytest.raises(InputError, match="cannot be reached"):
                listed(parse_address(source))
    with small_archive(files, listen=0) as port:
        with pytest.raises(InputError, match=f"OTHER at 127.0.0.1:{port} refuses us"):
            listed(parse_address(f"pacs://OTHER@127.0.0.1:{port}?PatientID=17"))
        stranger = parse_address(f"pacs://{TITLE}@127.0.0.1:{port}?PatientID=17&aet=STRANGER&listen=0")
        with pytest.raises(InputError, match="does not know where STRANGER is"), fetched(stranger, listed(stranger)[0]):
            pytest.fail("the archive sends only to whom it knows")


def test_addresses() -> None:
    assert isinstance(address_or_path("ct.nrrd"), Path)
    web = parse_address("dicomweb://pacs.example:8443/dcm4chee/rs/studies/1.2/series/1.3")
    assert (web.service, web.study, web.series) == ("https://pacs.example:8443/dcm4chee/rs", "1.2", "1.3")
    assert web.of_series("1.2", "1.3") == str(web)
    net = parse_address("pacs://ORTHANC@host?PatientID=7&aet=ME&listen=4006")
    assert (net.title, net.port, net.own_title, net.listen, net.keys) == (
        "ORTHANC",
        104,
        "ME",
        4006,
        {"PatientID": "7"},
    )
    for text, said in (
        ("dicomweb://host/dicom-web", "asks for everything"),
        ("dicomweb://anna:secret@host/x?PatientID=1", "A password stands in the address"),
        ("pacs://host:104?PatientID=1", "does not say the AE title"),
        ("dicomweb://host?Colour=red", "asks for 'Colour'"),
        ("dicomweb://host/studies/../../etc", "is no UID"),
        ("pacs://A@host:port?PatientID=1", "is no address"),
        ("pacs://A@host?PatientID=1&listen=99999", "makes no sense"),
    ):
        with pytest.raises(InputError, match=said):
            parse_address(text)


@pytest.mark.slow
def test_orthanc_stores_every_kind_of_object(tmp_path: Path) -> None:
    """All objects of a result lie in one study of the patient."""
    pytest.importorskip("highdicom", reason="the extra [dicom] is not installed")
    program = orthanc_program()
    if program is None:
        pytest.skip(MISSING)
    export = export_of(scan(orthogonal(GEOMETRIES["oblique"])))
    with written(export, tmp_path / "out") as series, orthanc(program, tmp_path) as server:
        for file in sorted(tmp_path.glob("out/*/*.dcm")):
            server.send(file)
        found = listed(parse_address(f"dicomweb+http://127.0.0.1:{server.web}/dicom-web?PatientID=case"))
    stored = {(s.uid, s.description, s.modality) for s in found}
    assert stored == {(s.series, s.description, s.modality) for s in series}
    assert len({s.study for s in found}) == 1
