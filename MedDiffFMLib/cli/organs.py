"""``meddifffm organs FOLDER -o MAP``: TotalSegmentator's masks as the one organ map that ``--anatomy`` takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..conditioning.totalsegmentator_labels import ORGANS
from .arguments import add_command
from .console import Console


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(subparsers, common, "organs", run, "Merge TotalSegmentator's masks into one organ map.")
    parser.add_argument("folder", type=Path, help="of masks called as the structures: liver.nii.gz, ...")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MAP", help=".nrrd, .nii.gz or .mha")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing map")


def run(args: argparse.Namespace, console: Console) -> int:
    """Merge and write."""
    import numpy as np

    from ..datasets.organ_masks import merge_organ_masks
    from ..imaging.io import write_volume

    merged = merge_organ_masks(args.folder, console.warning)
    write_volume(merged, args.output, mask=True, overwrite=args.overwrite)
    organs = [ORGANS[int(number) - 1] for number in np.unique(merged.voxels) if number]
    answer = {"status": "done", "output": str(args.output), "organs": organs}
    console.answer(answer, f"{args.output}: {len(organs)} structures.")
    return 0
