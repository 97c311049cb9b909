"""Models for other programs: MONAI runs the bundles, the Hugging Face Hub's client finds what was uploaded."""

from __future__ import annotations

import hashlib
import http.server
import json
import logging
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import MedDiffFMLib as mdf
from MedDiffFMLib.api.model_export import SCHEMA, card_head
from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import DependencyError, InputError, ModelError
from MedDiffFMLib.core.file_hash import file_sha256
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models import hub
from MedDiffFMLib.models.catalogue import CatalogueEntry, list_models, register_model

MANDATORY = ("version", "changelog", "monai_version", "pytorch_version", "numpy_version", "required_packages_version",
             "task", "description", "authors", "copyright", "network_data_format")  # fmt: skip
"""Of metadata.json, as MONAI's page on bundles lists them."""
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def tiny(tiny_model_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The tiny prior among the models of the user."""
    monkeypatch.setenv("MEDDIFFFM_MODELS", str(tmp_path / "models"))
    digest = file_sha256(tiny_model_file)
    entry = CatalogueEntry("tiny", "Tiny prior", "For tests.", "", digest, 1, "CC0", "nothing", 100)
    return register_model(entry, tiny_model_file, "# Model card: tiny\n").name


@pytest.fixture
def head(tiny: str, tiny_model_file: Path, tmp_path: Path) -> str:
    """A segmentation head with random weights on it."""
    from MedDiffFMLib.datasets.labels import label_table
    from MedDiffFMLib.models.checkpoint import denoiser_of, read_weights
    from MedDiffFMLib.segmentation.head_file import save_head
    from MedDiffFMLib.segmentation.method import make_method, options_of

    method = make_method("unet", {})
    weights = read_weights(tiny_model_file)
    part = method.build(2, denoiser_of(weights)).part
    labels = label_table([1, 2], {1: "liver", 2: "tumor"})
    prior = {"name": tiny, "sha256": weights.sha256}
    path = tmp_path / "head.safetensors"
    digest = save_head(path, part, method="unet", options=options_of(method), labels=labels, spacing=3.0, prior=prior)
    entry = CatalogueEntry("my-head", "Head", "For tests.", "", digest, 1, "CC0", "nothing", 100, kind="segmentation",
                           task="segmentation", prior=weights.sha256)  # fmt: skip
    return register_model(entry, path, "# Model card: my-head\n").name


def exported(name: str, folder: Path) -> Path:
    assert main(["models", "export", name, "--bundle", str(folder), "--quiet"]) == 0
    return folder


def verify(bundle: Path, tmp_path: Path) -> None:
    """By monai.bundle; the schema, which it would fetch, is that of MONAI's page."""
    from monai.bundle import verify_metadata

    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "required": MANDATORY}))
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(schema))


def check_network(bundle: Path) -> None:
    """Channels and types of the network are those that the metadata promise."""
    from monai.bundle import verify_net_in_out

    verify_net_in_out(
        "network_def", meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"), device="cpu", bundle_root=str(bundle),
        **{"_meta_#network_data_format#inputs#image#spatial_shape": [16, 16, 16]},
    )  # fmt: skip


@pytest.mark.slow
def test_monai_verifies_and_runs_a_bundle_of_a_prior(tiny: str, small_ct: Volume, tmp_path: Path) -> None:
    """The files are those of the command line."""
    from monai.bundle import run

    bundle = exported(tiny, tmp_path / "bundle")
    verify(bundle, tmp_path)
    check_network(bundle)
    (tmp_path / "cts").mkdir()
    write_volume(small_ct, tmp_path / "cts" / "chest.nrrd")
    run(
        meta_file=str(bundle / "configs" / "metadata.json"), config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle), dataset_dir=str(tmp_path / "cts"), output_dir=str(tmp_path / "out"), device="cpu",
        parameters={"noise": 20.0},
    )  # fmt: skip
    words = ["denoise", str(tmp_path / "cts" / "chest.nrrd"), "-o", str(tmp_path / "by-command"), "--noise", "20"]
    assert main([*words, "--model", tiny, "--device", "cpu", "--quiet"]) == 0
    one, two = (read_volume(tmp_path / folder / "chest_denoise.nrrd") for folder in ("out", "by-command"))
    assert np.array_equal(one.voxels, two.voxels)


@pytest.mark.slow
def test_monai_runs_the_networks_of_heads(head: str, tmp_path: Path) -> None:
    bundle = exported(head, tmp_path / "head-bundle")
    verify(bundle, tmp_path)
    check_network(bundle)
    described = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert described["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "liver", "1": "tumor"}
    control = exported("lesion", tmp_path / "lesion-bundle")
    verify(control, tmp_path)
    check_network(control)
    assert {path.name for path in (control / "models").iterdir()} == {"lesion.safetensors", "starter-ct.safetensors"}


def test_what_cannot_be_exported_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    for words, said in (
        (["export"], "needs a name or an address"),
        (["export", "starter-ct"], "What to export"),
        (["export", "nobody", "--hub", str(tmp_path / "x")], "no model called 'nobody'"),
        (["export", "body-coordinates", "--bundle", str(tmp_path / "x")], "does no task of its own"),
        (["export", "lesion", "--hub", str(tmp_path / "there")], "exists already"),
    ):
        assert main(["models", *words]) == 2
        assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_card_heads_are_read_by_the_hubs_own_reader() -> None:
    reader = pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed")
    for entry in list_models():
        data = reader.ModelCard(f"{card_head(entry)}\n# {entry.title}\n").data
        assert (data.license, data.library_name, data.model_name) == ("cc-by-4.0", "meddifffm", entry.name)
    own = CatalogueEntry("mine", "", "", "", "0", 1, "that of your data", "", 1, kind="segmentation")
    head = yaml.safe_load(card_head(own).split("---")[1])
    assert head["license"] == "other" and head["license_name"] == "that of your data"
    assert head["pipeline_tag"] == "image-segmentation"


class Repository(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as its client asks for: files of one repository, with their hashes."""

    folder: Path
    asked: list[str] = []

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def _answer(self, whole: bool) -> None:
        match = re.fullmatch(rf"/lab/tiny/resolve/(?:main|{REVISION})/([\w.-]+)", self.path)
        file = self.folder / match[1] if match else None
        self.asked.append(f"{self.command} {self.path}")
        if file is None or not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if match else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if whole:
            self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def uploaded(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Repository]]:
    """A server with the exported folder; the client asks it instead of the Hub, with an empty cache."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="the extra [hub] is not installed")
    assert main(["models", "export", tiny, "--hub", str(tmp_path / "upload"), "--quiet"]) == 0
    handler = type("Handler", (Repository,), {"folder": tmp_path / "upload", "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        yield handler
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_model_of_the_hub_is_fetched_once_and_checked(uploaded: type[Repository], tiny: str, tmp_path: Path) -> None:
    model = mdf.load_model("hf://lab/tiny", device="cpu")
    assert model.name == "tiny" and model.sha256 == next(e.sha256 for e in list_models() if e.name == tiny)
    got = [line for line in uploaded.asked if line.startswith("GET") and "/resolve/" in line]
    assert sorted(line.rpartition("/")[2] for line in got) == ["meddifffm.json", "tiny.safetensors"]
    uploaded.asked.clear()
    hub.from_hub(f"hf://lab/tiny@{REVISION}")
    assert not [line for line in uploaded.asked if line.startswith("GET /lab")], "it lies in the cache"

    with pytest.raises(ModelError, match="cannot be fetched from the Hub"):
        hub.from_hub("hf://lab/other")
    shutil.rmtree(tmp_path / "cache")
    description = json.loads((uploaded.folder / "meddifffm.json").read_text())
    (uploaded.folder / "meddifffm.json").write_text(json.dumps({**description, "sha256": "0" * 64}))
    with pytest.raises(ModelError, match="the catalogue says 000000000000"):
        mdf.load_model("hf://lab/tiny", device="cpu")
    shutil.rmtree(tmp_path / "cache")
    (uploaded.folder / "meddifffm.json").write_text(json.dumps({**description, "file": "../../x.safetensors"}))
    with pytest.raises(ModelError, match="holds no model of MedDiff-FM"):
        hub.from_hub("hf://lab/tiny")


def test_addresses_and_a_missing_client_are_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no address of the Hub"):
        hub.from_hub("hf://tiny")
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match=r"huggingface_hub is missing.*meddifffm\[hub\]"):
        hub.from_hub("hf://lab/tiny")


def test_the_schema_is_one_of_monais() -> None:
    assert SCHEMA.startswith("https://github.com/Project-MONAI/MONAI-extra-test-data/")
