"""The catalogue of models: what there is, where it lies, what it weighs and under which licence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..resources import resource_folder

CATALOGUE = "models.json"


@dataclass(frozen=True)
class CatalogueEntry:
    """One model of ``models.json``; fields as in its schema."""

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

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return resource_folder() / "Models" / self.file


def list_models() -> list[CatalogueEntry]:
    """All entries of the shipped catalogue; raises ModelError if it cannot be read."""
    path = resource_folder() / "Models" / CATALOGUE
    try:
        records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["models"]
        return [CatalogueEntry(**record) for record in records]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelError(
            f"The model catalogue {path} cannot be read ({error}).", "Install MedDiff-FM again."
        ) from error


def resolve(spec: str) -> tuple[str, Path, str | None]:
    """Catalogue name or path -> (name, file, expected SHA-256 or None for a user's own file)."""
    path = Path(spec)
    if path.suffix or len(path.parts) > 1:
        return path.stem, path, None
    entries = {entry.name: entry for entry in list_models()}
    if spec not in entries:
        raise ModelError(
            f"There is no model called {spec!r}.",
            f"Choose {', '.join(entries)} or give the path of a .safetensors file.",
        )
    return spec, entries[spec].path, entries[spec].sha256
