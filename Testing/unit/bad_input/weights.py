"""Weights."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.models import catalogue
from MedDiffFMLib.models import entry as catalogue_entry
from MedDiffFMLib.models.checkpoint import FORMAT, build_denoiser, load_model, read_header, save_model
from MedDiffFMLib.networks.unet import NetworkConfig

from .rows import case


def weights_file(path: Path, format_name: str = FORMAT, more: dict[str, str] | None = None) -> Path:
    """A safetensors file byte by byte, so that its hash is the same with every version of the library."""
    description = {"format": format_name, **(more or {"config": "{}", "calibration": "{}"})}
    tensor = {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}
    header = json.dumps({"__metadata__": description, "weight": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    return path


@case(
    "missing weights",
    "There is no weight file {folder}/prior.safetensors. Check the path, or use a name that `meddifffm models` lists.",
    ModelError,
)
def _no_weights(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_model(str(folder / "prior.safetensors"))


@case(
    "pickle offered as weights",
    "prior.safetensors is a pickle file, which can run code when it is opened. "
    "Only safetensors weights are accepted; convert it in an environment that you trust.",
    ModelError,
)
def _pickle(folder: Path, _: pytest.MonkeyPatch) -> None:
    import pickle

    class Trap:
        def __reduce__(self):
            return Path.touch, (folder / "code-was-run",)

    (folder / "prior.safetensors").write_bytes(pickle.dumps(Trap()))
    try:
        load_model(str(folder / "prior.safetensors"))
    finally:
        assert not (folder / "code-was-run").exists()


@case(
    "PyTorch checkpoint offered as weights",
    "prior.pt is a pickle file, which can run code when it is opened. "
    "Only safetensors weights are accepted; convert it in an environment that you trust.",
    ModelError,
)
def _torch_file(folder: Path, _: pytest.MonkeyPatch) -> None:
    import torch

    torch.save({"weight": torch.zeros(4)}, folder / "prior.pt")
    load_model(str(folder / "prior.pt"))


@case(
    "truncated weights",
    "prior.safetensors is not a readable safetensors file: it is truncated, damaged, or of another format. "
    "Fetch it again.",
    ModelError,
)
def _truncated_weights(folder: Path, _: pytest.MonkeyPatch) -> None:
    path = weights_file(folder / "prior.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    load_model(str(path))


@case(
    "weights with a flipped bit",
    "prior.safetensors was changed or damaged: its own checksum does not fit. Fetch it again.",
    ModelError,
)
def _flipped_weights(folder: Path, _: pytest.MonkeyPatch) -> None:
    path = _small_prior(folder / "prior.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    load_model(str(path), device="cpu")


@case(
    "weights whose description asks for terabytes",
    "The weights in prior.safetensors do not fit its description (first at 'network.unet.class_embedding.weight'). "
    "Fetch it again.",
    ModelError,
)
def _vast_weights(folder: Path, _: pytest.MonkeyPatch) -> None:
    config, path = _small_config(), folder / "prior.safetensors"
    vast = {**config, "network": {**config["network"], "channels": [8000, 8000]}}
    save_model(path, build_denoiser(config).state_dict(), vast)
    load_model(str(path), device="cpu")


def _small_config() -> dict[str, Any]:
    return {"network": NetworkConfig(channels=(8, 32), attention=(False, False)).as_dict(), "denoiser": "edm"}


def _small_prior(path: Path) -> Path:
    """A whole weight file with random weights."""
    config = _small_config()
    save_model(path, build_denoiser(config).state_dict(), config)
    return path


@case(
    "weights of another program",
    "prior.safetensors holds no MedDiff-FM prior ('pt', not 'meddifffm-prior-1'). "
    "Use weights made by `meddifffm pretrain` or listed by `meddifffm models`.",
    ModelError,
)
def _foreign_weights(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_model(str(weights_file(folder / "prior.safetensors", "pt")))


@case(
    "weights with the wrong SHA-256",
    "The SHA-256 of prior.safetensors is ebe5a1efefb3..., the catalogue says 0123456789ab... "
    "The file was changed or damaged; fetch it again.",
    ModelError,
)
def _tampered_weights(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "Models").mkdir()
    described = {"config": json.dumps({"network": {}}), "calibration": "{}"}
    path = weights_file(folder / "Models" / "prior.safetensors", FORMAT, described)
    entry = {"name": "prior", "title": "", "description": "", "file": path.name, "sha256": "0123456789ab" + 52 * "0",
             "bytes": path.stat().st_size, "licence": "", "training_data": "", "memory_mb": 1}  # fmt: skip
    (folder / "Models" / "models.json").write_text(json.dumps({"models": [entry]}))
    for module in (catalogue, catalogue_entry):
        patch.setattr(module, "resource_folder", lambda: folder)
    assert read_header(path)["format"] == FORMAT
    load_model("prior")
