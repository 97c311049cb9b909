"""Does diffusion segmentation know where it is wrong? Reliability, and errors among the most uncertain voxels.

    meddifffm finetune --task segmentation --method medsegdiff --data TRAINING.json -o RUN
    meddifffm finetune --task segmentation --data HELDOUT.json -o HELDOUT --prepare-only
    python Testing/experiments/segmentation_uncertainty.py HELDOUT/cache RUN/best.safetensors [--draws 25] [-o FOLDER]

All prepared cases of HELDOUT are segmented, both splits. Four probabilities are judged: one step from the highest
noise, which is an ordinary segmentation by the same network; a single draw; the mean of the draws; STAPLE's posterior.
Two maps of doubt: the spread of the draws, and p (1 - p) of the one step. Only voxels above -500 HU count, since no one
is in doubt about air. Writes ``uncertainty.json``, the figure ``uncertainty.png`` and slices of each case.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from MedDiffFMLib.evaluation.quality.metrics import bootstrap
from MedDiffFMLib.evaluation.quality.uncertainty import SHARES, draw_calibration, errors_found, reliability
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.segmentation.head_file import load_head
from MedDiffFMLib.segmentation.inputs import LabeledInput
from MedDiffFMLib.segmentation.medsegdiff import MedSegDiffSegmenter, fuse
from MedDiffFMLib.segmentation.method import InferenceBudget
from MedDiffFMLib.training.finetune.cases import open_control_cases
from MedDiffFMLib.training.finetune.segmentation_case import make_example

AIR = -500.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("head", type=Path)
    parser.add_argument("--draws", type=int, default=25)
    parser.add_argument("--model", default="starter-ct")
    parser.add_argument("--output", "-o", type=Path, default=Path("segmentation_uncertainty"))
    given = parser.parse_args()
    model = load_model(given.model)
    head = load_head(given.head, model)
    segmenter = head.segmenter
    assert isinstance(segmenter, MedSegDiffSegmenter)
    segmenter.to(model.engine.device)
    given.output.mkdir(parents=True, exist_ok=True)
    cases = [case for split in ("training", "validation") for case in open_control_cases(given.cache, split)]
    examples = [make_example(case.case, case.mask, head.labels, head.spacing) for case in cases]
    budget = InferenceBudget(model.engine.device, batch=4)
    found = []
    for example in examples:
        found.append(segment(segmenter, example, budget, given.draws))
        draw_slices(given.output / f"{example.name}.png", example, found[-1])
        print(json.dumps({"case": example.name, **found[-1]["figures"]}), flush=True)
    report(given.output, found)


def segment(
    segmenter: MedSegDiffSegmenter, example: LabeledInput, budget: InferenceBudget, draws: int
) -> dict[str, Any]:
    """Probabilities, doubts and figures of one case; arrays (D, H, W) of the first class."""
    method = segmenter.method
    with torch.no_grad():
        segmenter.method = dataclasses.replace(method, steps=1)
        one = segmenter.draw(example.inputs, budget, 1)[0, 0].numpy()
        segmenter.method = method
        begin = time.perf_counter()
        drawn = segmenter.draw(example.inputs, budget, draws)
        seconds = time.perf_counter() - begin
    fused, mean = fuse(drawn, "staple"), fuse(drawn, "mean")
    chance = {
        "one step": one,
        "one draw": drawn[0, 0].numpy(),
        "mean of draws": mean.probabilities[0].numpy(),
        "STAPLE": fused.probabilities[0].numpy(),
    }
    truth, counts = np.asarray(example.target) == 1, np.asarray(example.inputs.voxels) > AIR
    doubt = {"one step": one * (1 - one), "STAPLE": fused.uncertainty[0].numpy()}
    figures: dict[str, float] = {"seconds": seconds}
    for name, p in chance.items():
        figures[f"dice {name}"] = dice(p > 0.5, truth)
        figures[f"calibration error {name}"] = reliability(p[counts], truth[counts]).error
    for name, map_of in doubt.items():
        wrong = (chance[name] > 0.5) != truth
        figures[f"errors in top 10 % {name}"] = errors_found(map_of[counts], wrong[counts])
        figures[f"error rate {name}"] = float(wrong[counts].mean())
    figures = {name: round(value, 4) for name, value in figures.items()}
    return {"chance": chance, "doubt": doubt, "truth": truth, "counts": counts, "figures": figures}


def dice(ours: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (ours & truth).sum() / max(ours.sum() + truth.sum(), 1))


def report(folder: Path, found: list[dict[str, Any]]) -> None:
    """Means with intervals over the cases, and curves over all their voxels together."""

    def together(kind: str) -> dict[str, np.ndarray]:
        return {name: np.concatenate([one[kind][name][one["counts"]] for one in found]) for name in found[0][kind]}

    chance, doubt = together("chance"), together("doubt")
    truth = np.concatenate([one["truth"][one["counts"]] for one in found])
    curves = {name: reliability(p, truth) for name, p in chance.items()}
    lines = {
        name: [errors_found(map_of, (chance[name] > 0.5) != truth, share) for share in SHARES]
        for name, map_of in doubt.items()
    }
    draw_calibration(folder / "uncertainty.png", curves, lines, f"{len(found)} held-out cases")
    means = {name: bootstrap([one["figures"][name] for one in found]) for name in found[0]["figures"]}
    record = {
        "mean, low, high": {name: [round(v, 4) for v in (m.mean, m.low, m.high)] for name, m in means.items()},
        "all voxels": {
            "calibration error": {name: round(c.error, 4) for name, c in curves.items()},
            "errors found": {
                n: dict(zip(map(str, SHARES), np.round(line, 3).tolist(), strict=True)) for n, line in lines.items()
            },
        },
    }
    (folder / "uncertainty.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    print(json.dumps(record, indent=1))


def draw_slices(path: Path, example: LabeledInput, found: dict[str, Any]) -> None:
    """The slice with most of the structure: the CT with outlines, the mean of the draws, their spread."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    k = int(found["truth"].sum(axis=(1, 2)).argmax())
    canvas = Figure(figsize=(12, 4.4), layout="constrained")
    FigureCanvasAgg(canvas)
    score = found["figures"]["dice STAPLE"]
    canvas.suptitle(f"{example.name}: Dice {score:.2f}; real outline yellow, STAPLE's red")
    panels = canvas.subplots(1, 3)
    image = np.asarray(example.inputs.voxels[k], dtype=np.float32)
    for axes, (title, overlay, top) in zip(
        panels,
        [
            ("CT", None, 1.0),
            ("mean of the draws", found["chance"]["mean of draws"][k], 1.0),
            ("spread of the draws", found["doubt"]["STAPLE"][k], 0.5),
        ],
        strict=True,
    ):
        axes.imshow(image, cmap="gray", vmin=-160, vmax=240)
        if overlay is None:
            axes.contour(found["truth"][k], [0.5], colors="yellow", linewidths=1)
            if (found["chance"]["STAPLE"][k] > 0.5).any():
                axes.contour(found["chance"]["STAPLE"][k], [0.5], colors="red", linewidths=1)
        else:
            axes.imshow(overlay, cmap="inferno", vmin=0, vmax=top, alpha=0.7)
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    canvas.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
