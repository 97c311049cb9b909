"""Tissue classes of synthetic CTs, measured again and held against those that were asked for (Dice).

    python Testing/experiments/synthesis_figures.py [--regions chest abdomen pelvis] [--seeds 0 1] [--spacing 3]
        [--length 90] [--save FOLDER]

Each line is one CT of nobody as ``meddifffm synthesize`` makes it; with ``--length`` so many mm of the body, for fine
voxels. Before it stands the image that the prior was given, measured in the same way. What was asked for is the bent
template on the result's grid, by the classes of ``conditioning.tissue``; what is there is found by that module's rule,
which never sees the template. Contrast-filled vessels count as soft tissue where they are asked for and where they are
found.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from MedDiffFMLib.conditioning.tissue import TISSUES, classify_tissue
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.synthesize.bent_body import bent_body, own_size
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
    parser.add_argument("--length", type=float, help="mm of the body; its own length when not given")
    parser.add_argument("--save", type=Path, help="folder for the CTs as .npz: given, made, tissue asked for")
    options = parser.parse_args()
    model = load_model("starter-ct", device="cpu")
    columns = [name for name in TISSUES if CODES[name] != CONTRAST] + ["all voxels right"]
    print("| region, seed | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns), sep="\n")
    for region in options.regions:
        for seed in options.seeds:
            size = None if options.length is None else _cut(region, seed, options.length)
            layout = bent_layout(size, options.spacing, region, seed)
            assert layout is not None and layout.anatomy is not None
            asked, given = layout.anatomy.tissue(layout.grid), layout.anatomy.expected(layout.grid)
            task = Synthesize(size=size, spacing=options.spacing, layout="template")  # in short boxes, too
            made = task.run(Case(), Run(model, seed=seed, region=region)).volumes["synthetic"]
            for kind, image in (("given", np.rint(given).astype(np.int16)), ("made", made)):
                figures = overlaps(asked, classify_tissue(image, (options.spacing,) * 3))
                cells = [f"{figures[name]:.2f}" if name in figures else "-" for name in columns]
                print(f"| {region}, {seed}, {kind} | " + " | ".join(cells) + " |", flush=True)
            if options.save is not None:
                options.save.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(options.save / f"{region}_{seed}", given=given, made=made, asked=asked)


def _cut(region: str, seed: int, length: float) -> tuple[float, float, float]:
    """Box of a body in mm that is so long and as wide as the body."""
    body = bent_body(region, None, seed)
    assert body is not None
    i, j, _ = own_size(body, region)
    return i, j, length


if __name__ == "__main__":
    main()
