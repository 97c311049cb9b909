"""Models for other programs: as a MONAI Bundle, and as a folder for the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.errors import InputError, ModelError, OutputError, reason_of
from ..models.catalogue import list_models
from ..models.checkpoint import check_sha256, read_header
from ..models.entry import KINDS, CatalogueEntry
from ..models.hub import DESCRIPTION
from ..runner.report import NOTICE

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
WINDOW = 64
_TASKS = {
    "prior": "denoise",
    "lesion": "generate_lesion",
    "super-resolution": "super_resolve",
    "segmentation": "segment",
}
"""Kind, or for a ControlNet its task -> task that the bundle runs."""
_LICENSES = {"CC BY 4.0": "cc-by-4.0", "Apache-2.0": "apache-2.0", "CC0": "cc0-1.0"}
"""Names of licenses as the Hub has them."""
_PAPERS = ["arXiv 2410.15432", "arXiv 2206.00364"]


def export_bundle(name: str, folder: Path) -> Path:
    """Write a MONAI Bundle of a model of the catalogue, complete or not at all.

    It holds the weights, those of the prior too, a configuration that runs the model's task on a folder of CTs, and the
    card. Whoever runs it needs this package.

    Raises:
        InputError: there is no such model, or one of a kind that does no task of its own.
        ModelError: weights are missing or damaged.
        OutputError: the folder exists, or cannot be written.
    """
    entry = _entry(name)
    task = _TASKS.get(entry.task if entry.kind == "control" else entry.kind)
    if task is None:
        raise InputError(f"{name!r} does no task of its own.", "Export a prior, a ControlNet or a segmentation head.")
    prior = entry if entry.kind == "prior" else _prior_of(entry)
    with _new(folder) as root:
        for place in ("configs", "models", "docs"):
            (root / place).mkdir()
        for model in {entry.name: entry, prior.name: prior}.values():
            check_sha256(model.path, model.sha256)
            shutil.copyfile(model.path, root / "models" / f"{model.name}.safetensors")
        _write(root / "configs" / "metadata.json", _metadata(entry))
        _write(root / "configs" / "inference.json", _inference(entry, prior, task))
        (root / "docs" / "README.md").write_text(_bundle_page(entry), encoding="utf-8")
        (root / "LICENSE").write_text(f"Weights: {entry.licence}.\nCode: Apache-2.0.\n", encoding="utf-8")
    return folder


def export_for_hub(name: str, folder: Path) -> Path:
    """Write a folder that can be uploaded to the Hugging Face Hub as it is: weights, description, card with its head.

    Raises:
        InputError: there is no such model.
        ModelError: weights are missing or damaged.
        OutputError: the folder exists, or cannot be written.
    """
    entry = _entry(name)
    check_sha256(entry.path, entry.sha256)
    with _new(folder) as root:
        shutil.copyfile(entry.path, root / f"{entry.name}.safetensors")
        record = {key: value for key, value in asdict(entry).items() if key not in ("folder", "card", "run")}
        _write(root / DESCRIPTION, {**record, "file": f"{entry.name}.safetensors"})
        (root / "README.md").write_text(f"{card_head(entry)}\n{_card(entry)}", encoding="utf-8")
    return folder


def card_head(entry: CatalogueEntry) -> str:
    """Front matter of a model card, as the Hugging Face Hub reads it."""
    license_ = _LICENSES.get(entry.licence, "other")
    rows = [
        f"license: {license_}",
        *([f"license_name: {json.dumps(entry.licence)}"] if license_ == "other" else []),
        "library_name: meddifffm",
        f"pipeline_tag: {'image-segmentation' if entry.kind == 'segmentation' else 'image-to-image'}",
        f"model_name: {entry.name}",
        "tags:",
        *(f"- {tag}" for tag in ("medical", "ct", "3d", "diffusion", "safetensors", entry.task or entry.kind)),
    ]
    return "\n".join(["---", *rows, "---", ""])


def _entry(name: str) -> CatalogueEntry:
    entries = {entry.name: entry for entry in list_models()}
    if name not in entries:
        raise InputError(f"There is no model called {name!r}.", f"Choose {', '.join(entries)}.")
    return entries[name]


def _prior_of(entry: CatalogueEntry) -> CatalogueEntry:
    for other in list_models("prior"):
        if other.sha256 == entry.prior:
            return other
    raise ModelError(
        f"The prior of {entry.name!r} ({entry.prior[:12]}...) is not in the catalogue.", "Add it, then export again."
    )


@contextlib.contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A folder that appears whole when the block ends, or not at all; the block gets the one to write to."""
    if os.path.lexists(folder):
        raise OutputError(f"'{folder}' exists already.", "Choose another folder.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent, ignore_cleanup_errors=True) as partial:
            whole = Path(partial) / folder.name
            whole.mkdir()
            yield whole
            os.rename(whole, folder)
    except OSError as problem:
        raise OutputError(
            f"'{folder}' cannot be written: {reason_of(problem)}.", "Free some space or choose another folder."
        ) from problem


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def _card(entry: CatalogueEntry) -> str:
    """The model's card; a line about it where there is none."""
    card = entry.path.with_name(entry.card) if entry.card else None
    if card is not None and card.is_file():
        return card.read_text(encoding="utf-8")
    return f"# Model card: {entry.name}\n\n{entry.description}\n\n{NOTICE}\n"


def _bundle_page(entry: CatalogueEntry) -> str:
    return f"""# {entry.title}

{entry.description}

**{NOTICE}**

Install `meddifffm` {__version__} or newer. Then, in the folder of the bundle, with CTs (NRRD, NIfTI, DICOM folders) in
`input`, and `--masks FOLDER` where the task needs masks:

```
python -m monai.bundle run --meta_file configs/metadata.json --config_file configs/inference.json --dataset_dir input
```

{_card(entry)}"""


def _metadata(entry: CatalogueEntry) -> dict[str, Any]:
    versions = {name: metadata.version(name).partition("+")[0] for name in ("monai", "torch", "numpy")}
    channels, outputs = _network_format(entry)
    return {
        "schema": SCHEMA,
        "version": __version__,
        "changelog": {__version__: "export of MedDiff-FM"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {"meddifffm": __version__},
        "name": entry.title,
        "task": f"{KINDS.get(entry.kind, entry.kind)}{f': {entry.task}' if entry.task else ''}",
        "description": entry.description,
        "authors": "MedDiff-FM for 3D Slicer contributors",
        "copyright": f"Weights: {entry.licence}",
        "data_source": entry.training_data,
        "data_type": "nrrd, nifti or dicom",
        "intended_use": NOTICE,
        "references": _PAPERS,
        "network_data_format": {"inputs": {"image": _image(channels)}, "outputs": {"pred": outputs}},
    }


def _image(channels: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "image",
        "format": "hounsfield",
        "modality": "CT",
        "num_channels": len(channels),
        "spatial_shape": [WINDOW, WINDOW, WINDOW],
        "dtype": "float32",
        "value_range": [-1000, 1000],
        "is_patch_data": True,
        "channel_def": channels,
    }


def _network_format(entry: CatalogueEntry) -> tuple[dict[str, str], dict[str, Any]]:
    """Channels that the bundle's network takes, and what it gives."""
    if entry.kind == "segmentation":
        from ..segmentation.head_file import read_head

        names = [row["name"] for row in read_head(entry.path)["labels"]]
        labels = {str(number): name for number, name in enumerate(names)}
        output = {**_image(labels), "type": "probabilities", "format": "segmentation", "value_range": [0, 1]}
        return {"0": "image"}, output
    channels = {"0": "image"}
    if entry.kind == "control":
        from ..models.controlnet_file import read_description

        control = read_description(entry.path)["control"]
        count = int(control.get("images", 0)) + int(control.get("masks", 0))
        channels |= {str(number): f"control {number}" for number in range(1, count + 1)}
    else:
        read_header(entry.path)
    return channels, _image({"0": "image"})


def _inference(entry: CatalogueEntry, prior: CatalogueEntry, task: str) -> dict[str, Any]:
    """Configuration of the run; see MONAI's page on bundles."""
    weights = {model.name: f"$@bundle_root + '/models/{model.name}.safetensors'" for model in (entry, prior)}
    network: dict[str, Any] = {"_target_": "MedDiffFMLib.api.bundle.PriorNetwork", "weights": weights[prior.name]}
    parameters: dict[str, Any] = {}
    if entry.kind == "segmentation":
        network = {"_target_": "MedDiffFMLib.api.bundle.SegmentationNetwork", "weights": weights[entry.name]}
        network |= {"prior": weights[prior.name], "window": WINDOW}
        parameters = {"head": weights[entry.name]}
    elif entry.kind == "control":
        network |= {"control": weights[entry.name]}
        parameters = {"control": weights[entry.name]}
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/input'",
        "masks": None,
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "parameters": parameters,
        "network_def": network,
        "evaluator": {
            "_target_": "MedDiffFMLib.api.bundle.BundleRun",
            "task": task,
            "cases": "@dataset_dir",
            "folder": "@output_dir",
            "model": weights[prior.name],
            "parameters": "@parameters",
            "masks": "@masks",
            "device": "@device",
        },
        "initialize": [],
        "run": ["$@evaluator.run()"],
    }
