"""Attacks on weight files and on the catalogue of models."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.models import catalogue
from MedDiffFMLib.models.checkpoint import load_denoiser, save_model
from MedDiffFMLib.models.controlnet_file import read_description
from MedDiffFMLib.models.entry import FOLDER_VARIABLE

from .mutations import changed_bytes, changed_json
from .target import Files, Target


class Weights(Target):
    """A prior: the header of safetensors, the description in it, the tensors."""

    name, weight = "weights", 4

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import torch

        from MedDiffFMLib.models.checkpoint import build_denoiser
        from MedDiffFMLib.networks.unet import NetworkConfig

        torch.set_num_threads(1)
        network = NetworkConfig(channels=(8, 32), attention=(False, False)).as_dict()
        config = {"network": network, "denoiser": "edm"}
        calibration = {"spacing": 3.0, "sets": 1, "levels": {"24": {"all": {"centre": [0.0], "spread": [1.0]}}}}
        save_model(folder / "tiny.safetensors", build_denoiser(config).state_dict(), config, calibration)
        self.content = (folder / "tiny.safetensors").read_bytes()
        length = int.from_bytes(self.content[:8], "little")
        self.header: dict[str, Any] = json.loads(self.content[8 : 8 + length])
        self.tensors = self.content[8 + length :]

    def make(self, rng: random.Random) -> Files:
        action = rng.random()
        if action < 0.3:
            return {"in.safetensors": changed_bytes(self.content, rng)}
        header = json.loads(json.dumps(self.header))
        about = header["__metadata__"]
        if action < 0.8:  # the description inside of the description
            key = rng.choice(("config", "config", "config", "calibration"))
            about[key] = changed_json(json.loads(about[key]), rng).decode("utf-8", "replace")
            return {"in.safetensors": packed(json.dumps(header).encode(), self.tensors)}
        return {"in.safetensors": packed(changed_json(header, rng), self.tensors)}

    def read(self, folder: Path) -> None:
        path = folder / "in.safetensors"
        load_denoiser(path)


class ControlFile(Weights):
    """A ControlNet's file: its description, and joining it to a prior."""

    name, weight = "control", 2

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from MedDiffFMLib.models.checkpoint import FoundationModel, load_model
        from MedDiffFMLib.models.controlnet_file import save_control
        from MedDiffFMLib.networks.controlnet import ControlBranch, ControlConfig

        self.model: FoundationModel = load_model(str(folder / "tiny.safetensors"), device="cpu")
        branch = ControlBranch(self.model.engine.denoiser.network.config, ControlConfig(masks=2, embedding=8, head=8))  # type: ignore[union-attr, arg-type]
        prior = {"name": "tiny", "sha256": self.model.sha256}
        path = folder / "control.safetensors"
        save_control(path, branch, task="lesion", prior=prior, settings={"diameter": [5.0, 20.0]})
        self.content = path.read_bytes()
        length = int.from_bytes(self.content[:8], "little")
        self.header, self.tensors = json.loads(self.content[8 : 8 + length]), self.content[8 + length :]

    def make(self, rng: random.Random) -> Files:
        if rng.random() < 0.5:
            return {"in.safetensors": changed_bytes(self.content, rng)}
        header = json.loads(json.dumps(self.header))
        about = header["__metadata__"]
        about["description"] = changed_json(json.loads(about["description"]), rng).decode("utf-8", "replace")
        return {"in.safetensors": packed(json.dumps(header).encode(), self.tensors)}

    def read(self, folder: Path) -> None:
        from MedDiffFMLib.models.controlnet_file import load_control

        path = folder / "in.safetensors"
        read_description(path)
        load_control(path, self.model, "lesion")


class Catalogue(Target):
    """An entry among the user's models, written by who knows whom: listed, resolved, removed."""

    name, weight = "catalogue", 3
    content = {
        "name": "ours", "title": "Ours", "description": "", "file": "ours.12345678.safetensors", "sha256": "0" * 64,
        "bytes": 10, "licence": "own", "training_data": "", "memory_mb": 100, "card": "ours.12345678.md",
        "kind": "control", "task": "lesion", "prior": "1" * 64, "run": "r",
    }  # fmt: skip

    def make(self, rng: random.Random) -> Files:
        return {
            "models/ours.json": changed_json(self.content, rng),
            "models/ours.12345678.safetensors": b"weights",
            "models/ours.12345678.md": b"card",
            "outside": b"keep",
        }

    def read(self, folder: Path) -> None:
        from MedDiffFMLib.cli.models import _record
        from MedDiffFMLib.core.json_files import json_ready

        os.environ[FOLDER_VARIABLE] = str(folder / "models")
        try:
            for entry in catalogue.list_models():
                json.dumps(json_ready(_record(entry)))
                _ = f"{entry.bytes / 1e6:.1f} {entry.prior[:12]} {entry.licence.ljust(9)}"
                if entry.is_own:
                    assert entry.path.parent == folder / "models", "the entry's file lies elsewhere"
                    catalogue.resolve(entry.name)
            if any(entry.is_own for entry in catalogue.list_models()):
                catalogue.remove_model("ours")
            else:
                raise ModelError("The entry is passed over.", "It is named in the log.")
        finally:
            assert (folder / "outside").read_bytes() == b"keep" and (folder / "models").is_dir()


def packed(header: bytes, tensors: bytes) -> bytes:
    """A safetensors file."""
    return len(header).to_bytes(8, "little") + header + tensors
