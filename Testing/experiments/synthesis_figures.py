"""Tissue classes of synthetic CTs, measured again and held against those that were asked for (Dice).

    python Testing/experiments/synthesis_figures.py [--regions chest abdomen pelvis] [--seeds 0 1] [--spacing 3]

Each line is one CT of nobody as ``meddifffm synthesize`` makes it. What was asked for is the bent template on the
result's grid, by the classes of ``conditioning.tissue``; what is there is found by that module's rule, which never
sees the template. Contrast-filled vessels count as soft tissue where they are asked for and where they are found.
"""

from __future__ import annotations

import argparse

import numpy as np

from MedDiffFMLib.conditioning.tissue import TISSUES, classify_tissue
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.synthesize.body_layout import bent_layout
from MedDiffFMLib.tasks.synthesize.spec import Synthesize

CODES = {name: code for code, name in enumerate(TISSUES, start=1)}
SOFT, CONTRAST = CODES["muscle and soft tissue"], CODES["contrast-filled"]


def overlaps(asked: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Dice of each class that is asked for, and the share of voxels with the class asked for."""
    asked, found = (np.where(classes == CONTRAST, SOFT, classes) for classes in (asked, found))
    dice = {
        name: 2 * float(((asked == n) & (found == n)).sum()) / float((asked == n).sum() + (found == n).sum())
        for name, n in CODES.items()
        if (asked == n).any()
    }
    return {**dice, "all voxels right": float((asked == found).mean())}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", nargs="+", default=["chest", "abdomen", "pelvis"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--spacing", type=float, default=3.0, help="mm")
    options = parser.parse_args()
    model = load_model("starter-ct", device="cpu")
    columns = [name for name in TISSUES if CODES[name] != CONTRAST] + ["all voxels right"]
    print("| region, seed | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns), sep="\n")
    for region in options.regions:
        for seed in options.seeds:
            layout = bent_layout(None, options.spacing, region, seed)
            assert layout is not None and layout.anatomy is not None
            made = Synthesize(spacing=options.spacing).run(Case(), Run(model, seed=seed, region=region))
            found = classify_tissue(made.volumes["synthetic"], (options.spacing,) * 3)
            figures = overlaps(layout.anatomy.tissue(layout.grid), found)
            cells = [f"{figures[name]:.2f}" if name in figures else "-" for name in columns]
            print(f"| {region}, {seed} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
