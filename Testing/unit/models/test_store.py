"""Stores and downloads: only with consent, resumed, checked, whole or not at all; against a server of this computer."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import Cancelled, InputError, ModelError, OutputError
from MedDiffFMLib.core.file_hash import file_sha256
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.models import download as downloads
from MedDiffFMLib.models.catalogue import available_models, list_models, resolve
from MedDiffFMLib.models.download import download
from MedDiffFMLib.models.store import add_store, check_address, stores


@dataclass
class Site:
    """Content of a server, and how badly it gives it.

    Attributes:
        files: path -> content.
        ranges: whether it goes on where it is asked to.
        cuts: bytes after which the next answers end too early; negative numbers are codes of errors.
        moved: path -> where it sends askers.
        asked: path and range of every question.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, site: Site, *args: Any) -> None:
        self.site = site
        super().__init__(*args)

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers.get("Range")
        site.asked.append((self.path, wanted))
        if self.path in site.moved:
            self.send_response(302)
            self.send_header("Location", site.moved[self.path])
            self.end_headers()
            return
        content = site.files.get(self.path)
        cut = site.cuts.pop(0) if site.cuts and self.path.endswith(".safetensors") else None
        if content is None or (cut is not None and cut < 0):
            self.send_error(404 if content is None else -cut)  # type: ignore[operator]
            return
        begin = int(re.findall(r"\d+", wanted)[0]) if wanted and site.ranges else 0
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        self.wfile.write(content[begin:] if cut is None else content[begin : begin + cut])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, site))
    site.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDDIFFFM_MODELS", str(tmp_path / "own"))
    monkeypatch.setattr(downloads, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(downloads, "_BLOCK", 4096)
    return tmp_path / "own"


def row(weights: Path, **changes: object) -> dict[str, Any]:
    return {
        "name": "lab-prior", "title": "Prior of the laboratory", "description": "For tests.",
        "file": "lab prior.safetensors", "sha256": file_sha256(weights), "bytes": weights.stat().st_size,
        "licence": "CC BY 4.0", "training_data": "none", "memory_mb": 10, **changes,
    }  # fmt: skip


def offer(site: Site, weights: Path, **changes: object) -> str:
    """Put a model into the store; gives the address of the catalogue."""
    site.files["/lab/lab%20prior.safetensors"] = weights.read_bytes()
    site.files["/lab/models.json"] = json.dumps({"models": [row(weights, **changes)]}).encode()
    return f"{site.url}/lab"


def weights_asked(site: Site) -> list[str | None]:
    return [wanted for path, wanted in site.asked if path.endswith(".safetensors")]


@pytest.mark.slow
def test_a_strangers_way_from_the_store_to_a_result(
    site: Site,
    tiny_model_file: Path,
    own: Path,
    small_ct_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = offer(site, tiny_model_file)
    assert main(["models", "add-store", address]) == 0
    assert capsys.readouterr().out == f"{address}/models.json offers lab-prior.\n"
    assert main(["models"]) == 0
    assert "To download with `meddifffm models download NAME`" in capsys.readouterr().out
    denoise = ["denoise", str(small_ct_file), "-o", str(tmp_path / "out"), "--model", "lab-prior", "--steps", "1",
               "--device", "cpu", "--threads", "1", "--quiet"]  # fmt: skip
    assert main(denoise) == 2  # nobody can be asked
    assert "is not on this computer yet" in capsys.readouterr().err and weights_asked(site) == []
    assert main([*denoise, "--yes"]) == 0 and weights_asked(site) == [None]
    assert main(["models", "check"]) == 0
    assert re.search(r"(?m)^lab-prior +ok$", capsys.readouterr().out)
    assert resolve("lab-prior")[1].read_bytes() == tiny_model_file.read_bytes() and available_models() == []
    assert main(["models", "--remove", "lab-prior"]) == 0 and main(["models", "remove-store", address]) == 0
    assert stores() == [] and [path for path in own.rglob("*") if path.is_file()] == []


def test_the_terminal_is_asked(
    site: Site, tiny_model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_store(offer(site, tiny_model_file))
    for answer, code in (("\n", 130), ("n\n", 130), ("y\n", 0)):
        terminal = io.StringIO(answer)
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", terminal)
        assert main(["models", "download", "lab-prior", "--quiet"]) == code
        said = capsys.readouterr().err
        assert "MB, licence CC BY 4.0, from http://127.0.0.1" in said and "[y/N]" in said
    assert main(["models", "download", "lab-prior", "--yes"]) == 2
    assert "is on this computer already" in capsys.readouterr().err


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_gone_on_with(site: Site, tiny_model_file: Path, own: Path, ranges: bool) -> None:
    """Where the server cannot go on, it begins again; either way the file is right."""
    add_store(offer(site, tiny_model_file))
    site.ranges, size = ranges, tiny_model_file.stat().st_size
    site.cuts = [1000, -503, 2000, 0]
    seen: list[float] = []
    download(available_models()[0], progress=lambda event: seen.append(event.fraction))
    assert resolve("lab-prior")[1].read_bytes() == tiny_model_file.read_bytes()
    assert seen == sorted(seen) and seen[-1] == 1.0
    begun = [wanted for wanted in weights_asked(site)]
    assert begun[:3] == [None, "bytes=1000-", "bytes=1000-"] and len(begun) == 5
    assert begun[3] == ("bytes=3000-" if ranges else "bytes=2000-") and size > 3000
    assert not list(own.glob(".*"))


def test_a_stopped_download_goes_on_in_the_next_run(site: Site, tiny_model_file: Path, own: Path) -> None:
    add_store(offer(site, tiny_model_file))
    entry, token = available_models()[0], CancelToken()
    with pytest.raises(Cancelled):
        download(entry, cancel=token, progress=lambda event: token.cancel() if event.fraction else None)
    (part,) = own.glob(".*.part")
    came = part.stat().st_size
    assert 0 < came < entry.bytes and all(known.name != "lab-prior" for known in list_models())
    download(entry)
    assert weights_asked(site) == [None, f"bytes={came}-"] and not list(own.glob(".*"))


def test_a_part_of_another_file_is_thrown_away(site: Site, tiny_model_file: Path, own: Path) -> None:
    add_store(offer(site, tiny_model_file))
    entry = available_models()[0]
    (own / f".lab-prior.{entry.sha256[:16]}.part").write_bytes(b"x" * 777)
    download(entry)
    assert weights_asked(site) == ["bytes=777-", None]
    assert resolve("lab-prior")[1].read_bytes() == tiny_model_file.read_bytes()


@pytest.mark.parametrize("change", ["longer", "changed", "shorter"])
def test_another_file_than_promised_is_refused(site: Site, tiny_model_file: Path, own: Path, change: str) -> None:
    add_store(offer(site, tiny_model_file))
    content = site.files["/lab/lab%20prior.safetensors"]
    wrong = {"longer": content + b"x" * 10000, "changed": content[:-1] + b"\0\0"[:1], "shorter": content[:-5]}[change]
    wrong = wrong[:-1] + bytes([wrong[-1] ^ 1])
    site.files["/lab/lab%20prior.safetensors"] = wrong
    expected = (InputError, "cannot be downloaded") if change == "shorter" else (ModelError, "SHA-256 or size differs")
    with pytest.raises(expected[0], match=expected[1]):
        download(available_models()[0])
    assert all(known.name != "lab-prior" for known in list_models())
    assert change == "shorter" or not list(own.glob(".*.part"))


def test_what_does_not_answer_is_said(site: Site, tiny_model_file: Path, own: Path) -> None:
    add_store(offer(site, tiny_model_file))
    entry = available_models()[0]
    site.cuts = [-403]
    with pytest.raises(InputError, match="answers 403 Forbidden"):
        download(entry)
    site.cuts = [-503] * 5
    with pytest.raises(InputError, match="answers 503"):
        download(entry)
    own_port, site.port = site.port, 1
    with pytest.raises(InputError, match="cannot be read: Connection refused"):
        add_store(f"{site.url}/lab")
    site.port = own_port
    site.files["/bad/models.json"] = b"<html>"
    with pytest.raises(InputError, match="is no catalogue of models"):
        add_store(f"{site.url}/bad")
    assert [known.name for known in available_models()] == ["lab-prior"]  # offline, what was offered is still known


def test_no_room_is_said_before_anything_is_asked(
    site: Site, tiny_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_store(offer(site, tiny_model_file))
    monkeypatch.setattr(downloads, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(OutputError, match="needs .* MB more"):
        download(available_models()[0])
    assert weights_asked(site) == []


def test_addresses_without_encryption_need_a_word_unless_they_are_of_this_computer(
    site: Site, tiny_model_file: Path
) -> None:
    for address, words in (
        ("http://models.example/prior.safetensors", "is not encrypted"),
        ("ftp://models.example/prior.safetensors", "no address of a model"),
        ("https://anna:secret@models.example/x", "A password stands"),
        ("https://models.example:port/x", "no address of a model"),
    ):
        with pytest.raises(InputError, match=words):
            check_address(address)
    assert check_address("http://models.example/x", insecure=True)
    address = offer(site, tiny_model_file, address="http://models.example/prior.safetensors")
    with pytest.raises(InputError, match="is not encrypted"):
        add_store(address)
    site.moved["/lab/models.json"] = "http://models.example/models.json"
    with pytest.raises(InputError, match="is not encrypted"):
        add_store(address)
    site.moved["/lab/models.json"] = "file:///etc/passwd"
    with pytest.raises(InputError, match="is not allowed"):
        add_store(address)
    site.moved.clear()
    offer(site, tiny_model_file, address=Path("/etc/passwd").as_uri())
    with pytest.raises(InputError, match="would come from this computer"):
        add_store(address)


def test_a_folder_and_a_variable_are_stores_too(
    tiny_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    (folder / "lab prior.safetensors").write_bytes(tiny_model_file.read_bytes())
    (folder / "models.json").write_text(json.dumps({"models": [row(tiny_model_file)]}))
    monkeypatch.setenv("MEDDIFFFM_STORES", folder.as_uri())
    assert main(["models", "update"]) == 0
    assert ": 1 models" in capsys.readouterr().out
    assert main(["models", "download", "lab-prior", "--yes", "--quiet"]) == 0
    assert main(["models", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert next(model for model in listed["models"] if model["name"] == "lab-prior")["address"].startswith("file://")
    for words in (["download"], ["check", "x"], ["remove-store", "https://nobody.example"], ["download", "nothing"]):
        assert main(["models", *words, "--quiet"]) == 2
        with contextlib.suppress(ValueError):
            assert "error" in capsys.readouterr().err
