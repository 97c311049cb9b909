"""``meddifffm info FILE``: geometry of a volume, and whether the tasks accept it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.visible_text import visible
from ..imaging.io import read_volume
from ..imaging.modality import CT
from ..imaging.volume import Volume
from ..runner.case import scan_warnings
from ..runner.report import input_record
from .arguments import add_command
from .console import Console


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(subparsers, common, "info", run, "Show geometry, HU range, region and problems of a CT.")
    source = "CT as .nrrd, .nii, .nii.gz, .mha, DICOM folder, .zip of one, or DICOM file"
    parser.add_argument("input", type=Path, help=source)
    parser.add_argument("--force", action="store_true", help="go on with values that do not look like CT")


def run(args: argparse.Namespace, console: Console) -> int:
    """Show it."""
    volume = read_volume(args.input)
    facts: dict[str, Any] = {**input_record(args.input, volume)}
    facts |= {"type": str(volume.voxels.dtype), "minimum": volume.voxels.min(), "maximum": volume.voxels.max()}
    try:
        facts["warnings"] = scan_warnings(volume, CT, args.force)
    except InputError as problem:
        raise InputError(f"{args.input.name}, {_size(facts)}: {problem.cause}", problem.remedy) from None
    facts["region"] = _region(volume)
    console.answer({"status": "done", **facts}, _text(facts))
    return 0


def _region(volume: Volume) -> str | None:
    from ..preprocessing.body_localization import localize_body

    return localize_body(volume).guessed


def _size(facts: dict[str, Any]) -> str:
    return " x ".join(str(n) for n in facts["shape_ijk"]) + " voxels"


def _text(facts: dict[str, Any]) -> str:
    spacing = " x ".join(f"{s:.4g}" for s in facts["spacing_mm"])
    extent = " x ".join(f"{s * n:.4g}" for s, n in zip(facts["spacing_mm"], facts["shape_ijk"], strict=True))
    rows = [
        ("size", f"{_size(facts)} of {spacing} mm = {extent} mm"),
        ("values", f"{facts['minimum']:g} to {facts['maximum']:g} HU, {facts['type']}"),
        ("region", f"{facts['region'] or 'unknown'} (guessed)"),
        ("sha256", facts["sha256"]),
        *(("warning", text) for text in facts["warnings"]),
    ]
    return "\n".join(f"{name:8} {visible(text)}" for name, text in rows)
