"""Models of the Hugging Face Hub: ``hf://owner/name[@revision]``.

The repository holds ``meddifffm.json``, the entry of a catalogue, with the name and the SHA-256 of the weights. Nothing
is fetched unless the user writes such an address; then it lies in huggingface_hub's cache.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ..core.errors import InputError, ModelError
from ..core.extras import needed
from ..core.safe_load import plain_name, read_json

SCHEME = "hf://"
DESCRIPTION = "meddifffm.json"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def from_hub(address: str) -> tuple[str, Path, str]:
    """Fetch a model, unless it is here already.

    Args:
        address: ``hf://owner/name`` or ``hf://owner/name@revision``.

    Returns:
        Name, file and the SHA-256 that its description says.

    Raises:
        InputError: no such address.
        DependencyError: huggingface_hub is missing.
        ModelError: there is no such repository, it cannot be reached, or it is not one of ours.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise InputError(
            f"{address!r:.120} is no address of the Hub.", "Write hf://owner/name or hf://owner/name@revision."
        )
    repository, revision = match[1], match[2]
    described = _fetched(repository, DESCRIPTION, revision)
    try:
        content: Any = read_json(described)
        name, file, sha256 = (content[key] for key in ("name", "file", "sha256"))
        if not (plain_name(file) and file.endswith(".safetensors") and re.fullmatch(r"[0-9a-f]{64}", sha256)):
            raise ValueError("no weights are named")
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ModelError(
            f"{repository} holds no model of MedDiff-FM ({DESCRIPTION}: {problem}).",
            "Upload a folder made by `meddifffm models export NAME --hub FOLDER`.",
        ) from problem
    return str(name), _fetched(repository, file, revision), sha256


def _fetched(repository: str, file: str, revision: str | None) -> Path:
    """Path of a file of a repository in the cache."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # nothing is sent that was not asked for
    hub = needed("huggingface_hub", "loading models from the Hugging Face Hub")
    try:
        return Path(hub.hf_hub_download(repository, file, revision=revision, library_name="meddifffm"))
    except Exception as problem:  # the library's own, those of its client for HTTP, and OSError
        reason = (str(problem).splitlines() or [type(problem).__name__])[0].rstrip(".")
        raise ModelError(
            f"{file} of {repository} cannot be fetched from the Hub ({type(problem).__name__}: {reason}).",
            "Check the address, the network, and `hf auth login` for a private one.",
        ) from problem
