"""The node of a department: real senders and receivers, of pynetdicom's, DCMTK's and Orthanc's making."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pydicom
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.dicom.sources.address import parse_address
from MedDiffFMLib.dicom.sources.archive import listed
from MedDiffFMLib.node.arrivals import Patience
from MedDiffFMLib.node.receiver import Limits
from MedDiffFMLib.node.service import try_again
from MedDiffFMLib.node.status import read_status
from MedDiffFMLib.node.tls import Certificates
from Testing.unit.dicom.archives import MISSING, TITLE, orthanc, orthanc_program

from .department import (
    CT_IMAGE,
    OURS,
    ROOT,
    SCANNER,
    TASK,
    WAIT,
    Archive,
    Child,
    ct_series,
    node_settings,
    running,
    send,
)

net = pytest.importorskip("pynetdicom", reason="the extra [pacs] is not installed")
pytest.importorskip("highdicom", reason="the extra [dicom] is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture
def archive() -> Any:
    with Archive().open(SCANNER) as archive:
        yield archive


def aside(folder: Path) -> dict[str, str]:
    """Name -> reason of what was put aside."""
    return {path.parent.name: json.loads(path.read_text())["reason"] for path in folder.glob("aside/*/reason.json")}


def audit(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("audit-*.jsonl")) for line in path.read_text().splitlines()]


def test_a_series_goes_in_and_its_result_comes_back_once(tmp_path: Path, archive: Archive) -> None:
    """To the sender, in the study of the scan; sent again it is not worked on again; no name stays."""
    files = ct_series(tmp_path / "ct")
    with running(node_settings(tmp_path / "queue", [f"{SCANNER}@127.0.0.1:{archive.port}"])) as node:
        assert send(files, node.port) == [0] * len(files)
        node.until("done")
        assert send(files[:5], node.port) == [0] * 5
        node.until("repeated")
    (result,) = archive.datasets.values()
    source = pydicom.dcmread(files[0])
    assert (result.PatientID, result.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert result.SeriesDescription.startswith("SYNTHETIC") and list(archive.arrived.values()) == [1]
    left = [path for path in (tmp_path / "queue").rglob("*") if path.is_file()]
    assert not [path for path in left if path.suffix == ".dcm"]
    assert not [path for path in left if b"Secret" in path.read_bytes() or b"P00000" in path.read_bytes()]
    said = [row["event"] for row in audit(tmp_path / "queue")]
    assert said == ["started", "received", "computed", "sent", "done", "repeated", "stopped"]
    state = read_status(tmp_path / "queue")
    assert not state["running"] and (state["done"], state["waiting"], state["bytes"]) == (1, 0, 0)


def test_strangers_are_refused(tmp_path: Path, archive: Archive) -> None:
    files = ct_series(tmp_path / "ct")
    callers = [f"{SCANNER}@192.0.2.7:104", f"OTHER@127.0.0.1:{archive.port}"]
    with running(node_settings(tmp_path / "queue", callers)) as node:
        for caller, called in (("EVIL", OURS), (SCANNER, OURS), ("OTHER", "WRONG")):
            entity = net.AE(ae_title=caller)
            entity.add_requested_context(CT_IMAGE)
            assert entity.associate("127.0.0.1", node.port, ae_title=called).is_rejected
        with socket.create_connection(("127.0.0.1", node.port)) as stranger:
            stranger.sendall(b"\x01\x00\xff\xff\xff\xff")  # a greeting of 4 GB
            stranger.recv(100)
        entity = net.AE(ae_title="OTHER")
        entity.add_requested_context("1.2.840.10008.1.1")
        entity.add_requested_context("1.2.840.10008.5.1.4.1.1.66.4")  # a segmentation is nothing to work on
        link = entity.associate("127.0.0.1", node.port, ae_title=OURS)
        assert link.send_c_echo().Status == 0 and len(link.accepted_contexts) == 1
        link.release()
        assert send(files, node.port, "OTHER") == [0] * len(files)
        node.until("done")
    reasons = [row["reason"] for row in audit(tmp_path / "queue") if row["event"] == "refused"]
    assert sorted(reasons) == [
        "AE title of a stranger", "address of a stranger", "asks for 'WRONG'", "did not say who it is",
    ]  # fmt: skip


def test_what_is_broken_is_kept_aside_with_a_reason(tmp_path: Path, archive: Archive) -> None:
    """The node goes on; a series that was put aside is worked on after all when somebody asks for it."""
    whole = ct_series(tmp_path / "whole", 1)
    mixed = ct_series(tmp_path / "mixed", 2)
    image = pydicom.dcmread(mixed[3])
    image.PatientID = "OTHERPERSON"
    image.save_as(mixed[3])
    truncated = ct_series(tmp_path / "truncated", 3)
    image = pydicom.dcmread(truncated[3])
    image.PixelData = image.PixelData[:100]
    image.save_as(truncated[3])
    ours = ct_series(tmp_path / "ours", 4, ManufacturerModelName="MedDiff-FM")
    queue = tmp_path / "queue"
    with running(node_settings(queue, [f"{SCANNER}@127.0.0.1:{archive.port}"])) as node:
        for files in (mixed, truncated):
            assert send(files, node.port) == [0] * len(files)
            assert node.until("put aside")
        assert send(ours, node.port) == [0x0124] * len(ours)
        assert send(ct_series(tmp_path / "scout", 5, slices=2), node.port) == [0, 0]
        assert node.until("passed over")["reason"] == "too few images for a volume"
        other = pydicom.dcmread(whole[0])
        other.PixelData = bytes(len(other.PixelData))
        other.save_as(tmp_path / "other.dcm")
        assert send([*whole, tmp_path / "other.dcm"], node.port) == [0] * len(whole) + [0x0111]
        node.until("done")
        reasons = aside(queue)
        assert len(reasons) == 3 and "OTHERPERSON" not in json.dumps(audit(queue))
        assert sum("mixes images of several patients" in reason for reason in reasons.values()) == 1
        assert sum("another content" in reason for reason in reasons.values()) == 1
        (name,) = (name for name, reason in reasons.items() if "mixes" in reason)
        (queue / "aside" / name / "images").joinpath(
            next(p.name for p in (queue / "aside" / name / "images").iterdir() if b"OTHERPERSON" in p.read_bytes())
        ).write_bytes(ct_series(tmp_path / "mended", 2)[3].read_bytes())
        try_again(queue, name)
        node.until("done")
    assert len(archive.arrived) == 2
    with pytest.raises(InputError, match="has no series '../jobs' aside"):
        try_again(queue, "../jobs")


def test_a_broken_connection_is_waited_for_and_then_told(tmp_path: Path, archive: Archive) -> None:
    """Half a series is not worked on, unless the rest comes; a whole one that is sent later is."""
    files, lost = ct_series(tmp_path / "ct", 1), ct_series(tmp_path / "lost", 2)
    settings = node_settings(tmp_path / "queue", [f"{SCANNER}@127.0.0.1:{archive.port}"])
    with running(settings) as node:
        break_off(files[:3], node.port)
        assert send(files, node.port) == [0] * len(files)
        node.until("done")
        break_off(lost[:5], node.port)
        assert "broke off after 5 images" in node.until("put aside")["reason"]
        assert send(lost[5:], node.port) == [0] * 3  # the rest alone is too little
        node.until("passed over")
        assert send(lost, node.port) == [0] * len(lost)
        node.until("done")
    assert len(archive.arrived) == 2


def break_off(files: list[Path], port: int) -> None:
    """Send, and go away without a word."""
    entity = net.AE(ae_title=SCANNER)
    entity.add_requested_context(CT_IMAGE)
    link = entity.associate("127.0.0.1", port, ae_title=OURS)
    for file in files:
        assert link.send_c_store(file).Status == 0
    link.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    link.kill()


def test_limits_are_told_by_status(tmp_path: Path, archive: Archive) -> None:
    files = ct_series(tmp_path / "ct")
    caller = f"{SCANNER}@127.0.0.1:{archive.port}"
    for limits, statuses in (
        (Limits(image_bytes=1000), [0xA700] * 8),
        (Limits(images=6), [0] * 6 + [0xA700] * 2),
        (Limits(queue_bytes=files[0].stat().st_size * 3), None),
        (Limits(free_bytes=1 << 60), [0xA700] * 8),
    ):
        queue = tmp_path / f"queue{limits.images}{limits.image_bytes}{limits.queue_bytes}{limits.free_bytes}"
        settings = node_settings(queue, [caller], limits=limits, patience=Patience(quiet=1000))
        with running(settings) as node:
            given = send(files, node.port)
        assert given == statuses if statuses else (given[0], given[-1]) == (0, 0xA700)
    with running(node_settings(tmp_path / "full", [caller], limits=Limits(connections=1))) as node:
        entity = net.AE(ae_title=SCANNER)
        entity.add_requested_context(CT_IMAGE)
        first = entity.associate("127.0.0.1", node.port, ae_title=OURS)
        assert entity.associate("127.0.0.1", node.port, ae_title=OURS).is_rejected
        first.release()


def test_a_target_that_refuses_gets_the_same_objects_later(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedDiffFMLib.node.delivery._FIRST_SECONDS", 0.1)
    archive.answers += [0xA700, 0xC000]
    with running(node_settings(tmp_path / "queue", [f"{SCANNER}@127.0.0.1:{archive.port}"])) as node:
        send(ct_series(tmp_path / "ct"), node.port)
        assert "refuses with A700" in node.until("not sent")["reason"]
        node.until("done")
    assert list(archive.arrived.values()) == [1]
    with running(node_settings(tmp_path / "other", [f"{SCANNER}@127.0.0.1:1"], hours=0)) as node:
        send(ct_series(tmp_path / "ct2", 2), node.port)
        assert "cannot be reached" in node.until("put aside")["reason"]


def test_several_rules_each_for_its_series(tmp_path: Path, archive: Archive) -> None:
    """By a file, over the command line; each rule has its target."""
    words = " ".join(TASK)
    with Archive().open("SECOND") as second:
        rules = {
            "rules": [
                {"name": "all", "task": words, "match": {"caller": "scan*"}},
                {"name": "three", "task": [*TASK, "--view", "lat"], "match": {"SeriesDescription": "thorax 3"},
                 "to": [f"pacs://SECOND@127.0.0.1:{second.port}", "sender"]},
                {"name": "none", "task": words, "match": {"BodyPartExamined": "HEAD"}},
            ]
        }  # fmt: skip
        (tmp_path / "rules.json").write_text(json.dumps(rules))
        caller = f"{SCANNER}@127.0.0.1:{archive.port}"
        more = ("--rules", str(tmp_path / "rules.json"), "--wait", "0.1")
        with Child(tmp_path / "queue", "--from", caller, *more) as child:
            for number in (2, 3):
                assert set(send(ct_series(tmp_path / f"ct{number}", number), child.port)) == {0}
            child.until("(done):", 2)
            assert main(["listen", "--queue", str(tmp_path / "queue"), "--status", "--json"]) == 0
            assert main(["listen", "--queue", str(tmp_path / "queue"), "--from", caller, "--port", "0", *TASK]) == 2
            child.process.send_signal(signal.SIGTERM)
            assert child.process.wait(WAIT) == 0
    assert (len(archive.arrived), len(second.arrived)) == (3, 1)
    assert not read_status(tmp_path / "queue")["running"]


def test_killed_at_work_it_goes_on_where_it_was(tmp_path: Path, archive: Archive) -> None:
    """kill -9 after images came, and again while it works: nothing is lost, and nothing comes twice."""
    caller, queue = f"{SCANNER}@127.0.0.1:{archive.port}", tmp_path / "queue"
    words = ("--from", caller, "--wait", "0.1", *TASK)
    series = [ct_series(tmp_path / f"ct{number}", number) for number in range(3)]
    with Child(queue, "--from", caller, "--wait", "1000", *TASK) as child:
        for files in series:
            assert set(send(files, child.port)) == {0}
    with Child(queue, *words) as child:
        child.until("(computed):")
    done = sum(row["event"] == "done" for row in audit(queue))
    with Child(queue, *words) as child:
        child.until("(done):", 3 - done)
    assert sorted(str(d.PatientID) for d in archive.datasets.values()) == ["P00000", "P00001", "P00002"]
    assert set(archive.arrived.values()) == {1} and not aside(queue)


# Encryption


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of a department, of a stranger, and of the department's authority."""
    folder = tmp_path_factory.mktemp("keys")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    for authority in ("ca", "evilca"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{authority}.key", "-out",
                f"{authority}.pem", "-subj", f"/CN={authority}", "-days", "2",
                "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name, authority in (("node", "ca"), ("scanner", "ca"), ("evil", "evilca")):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj",
                f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
                "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", "san")  # fmt: skip
    return folder


def of(keys: Path, name: str, authority: str = "ca") -> Certificates:
    return Certificates(keys / f"{name}.pem", keys / f"{name}.key", keys / f"{authority}.pem")


def test_tls_with_certificates_of_both_sides(tmp_path: Path, keys: Path) -> None:
    files = ct_series(tmp_path / "ct")
    with Archive().open(SCANNER, tls=of(keys, "scanner").server()) as archive:
        settings = node_settings(
            tmp_path / "queue", [f"{SCANNER}@127.0.0.1:{archive.port}"], certificates=of(keys, "node")
        )
        with running(settings) as node, socket.create_connection(("127.0.0.1", node.port)):  # one who says nothing
            assert send(files, node.port) == []  # without encryption
            without = ssl.create_default_context(cafile=str(keys / "ca.pem"))
            for context in (without, of(keys, "evil").client()):
                assert send(files, node.port, tls_args=(context, "127.0.0.1")) == []
            assert send(files, node.port, tls_args=(of(keys, "scanner").client(), "127.0.0.1")) == [0] * len(files)
            node.until("done")
            if storescu := dcmtk_sender():
                more = ct_series(tmp_path / "more", 2)
                done = dcmtk(storescu, node.port, more, "+tls", keys / "scanner.key", keys / "scanner.pem", "+cf",
                             keys / "ca.pem")  # fmt: skip
                assert done.returncode == 0, done.stderr
                node.until("done")
    assert {str(d.PatientID) for d in archive.datasets.values()} >= {"P00000"}
    with pytest.raises(InputError, match="certificate or key of --tls cannot be used"):
        Certificates(keys / "node.pem", keys / "evil.key", keys / "ca.pem").server()


# Other programs


def dcmtk_sender() -> str | None:
    """DCMTK's storescu, beside its dcmdump: pynetdicom puts a program of the same name into an environment."""
    dcmdump = shutil.which("dcmdump")
    return None if dcmdump is None else str(Path(dcmdump).with_name("storescu"))


def dcmtk(program: str, port: int, files: list[Path], *options: object) -> subprocess.CompletedProcess[str]:
    words = [program, *map(str, options), "-aet", SCANNER, "-aec", OURS, "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(words, capture_output=True, text=True, timeout=WAIT)


def test_dcmtk_sends(tmp_path: Path, archive: Archive) -> None:
    storescu = dcmtk_sender()
    if storescu is None:
        pytest.skip("DCMTK is not installed: apt-get install dcmtk")
    with running(node_settings(tmp_path / "queue", [f"{SCANNER}@127.0.0.1:{archive.port}"])) as node:
        assert dcmtk(storescu, node.port, ct_series(tmp_path / "ct")).returncode == 0
        node.until("done")
        stranger = subprocess.run([storescu, "-aet", "EVIL", "-aec", OURS, "127.0.0.1", str(node.port),
                                   str(next((tmp_path / "ct").iterdir()))], capture_output=True, text=True)  # fmt: skip
        assert stranger.returncode != 0 and "Calling AE Title Not Recognized" in stranger.stderr + stranger.stdout
    assert len(archive.arrived) == 1


def test_orthanc_sends_with_the_pages_script_and_takes_the_results(tmp_path: Path) -> None:
    """Over C-STORE and over STOW-RS: the same object, which it has once; what comes back is not sent again."""
    program = orthanc_program()
    if program is None:
        pytest.skip(MISSING)
    page = (ROOT / "docs" / "how-to" / "listen.md").read_text(encoding="utf-8")
    script = tmp_path / "to-meddifffm.lua"
    script.write_text(re.findall(r"(?s)```lua\n(.*?)```", page)[0])
    with orthanc(program, tmp_path, LuaScripts=[str(script)], StableAge=1) as server:
        web = f"dicomweb+http://127.0.0.1:{server.web}/dicom-web"
        settings = node_settings(
            tmp_path / "queue", [f"{TITLE}@127.0.0.1:{server.dicom}"], ("sender", web), port=server.listen
        )
        with running(settings) as node:
            for file in ct_series(tmp_path / "ct", 7):
                server.send(file)
            node.until("done")
            found = listed(parse_address(f"{web}?PatientID=P00007"))
            assert [(s.modality, s.images) for s in found] == [("CT", 8), ("OT", 1)]
            assert len({s.study for s in found}) == 1
        events = [row["event"] for row in audit(tmp_path / "queue")]
    assert events.count("sent") == 2 and events.count("received") == 1
