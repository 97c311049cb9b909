"""Entry of a model catalogue, and the folder of this user's models. Imports the standard library only."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from ..core.resources import resource_folder

FOLDER_VARIABLE = "MEDDIFFFM_MODELS"
KINDS = {
    "prior": "prior",
    "control": "ControlNet",
    "segmentation": "segmentation head",
    "body": "body coordinates",
    "translation": "flows between modalities",
    "companion": "companion",
    "encoders": "encoders of many modalities",
    "anomaly": "anomaly detector",
    "denoiser": "denoiser",
    "xrays": "regression of X-rays",
    "facts": "reader of facts",
}
"""Kinds of models and how a user calls them."""

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class CatalogueEntry:
    """One model; fields as in ``models.schema.json``.

    Attributes:
        kind: "prior", or "control" for a ControlNet.
        task: what a ControlNet was trained for.
        prior: SHA-256 of the prior that a ControlNet belongs to.
        run: the training run that made a user's model.
        address: where it can be downloaded from, or was; empty for one that was shipped or trained here.
        folder: where its files lie; None for the folder of shipped models.
    """

    name: str
    title: str
    description: str
    file: str
    sha256: str
    bytes: int
    licence: str
    training_data: str
    memory_mb: int
    card: str = ""
    kind: str = "prior"
    task: str = ""
    prior: str = ""
    run: str = ""
    address: str = ""
    folder: Path | None = None

    @property
    def path(self) -> Path:
        """Path of the file."""
        return (self.folder or resource_folder() / "Models") / self.file

    @property
    def is_own(self) -> bool:
        """True for a model of this user, False for a shipped one."""
        return self.folder is not None


def user_folder() -> Path:
    """Folder of this user's models: ``$MEDDIFFFM_MODELS``, else the platform's folder for data of programs."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "MedDiffFM" / "models"
