"""Dice of segmentation methods that learn from 1, 2, 5 or all cases in the same processor time.

    python Testing/experiments/segmentation.py DATALIST -o FOLDER [--seconds 60] [--counts 1 2 5] [--methods linear ...]

DATALIST is a decathlon JSON with "training" and "test" cases, each with an image and a label; FOLDER receives the
prepared cases and, for each method, count and case, one line of ``scores.jsonl``, from which the table is made anew
each time. Runs that are there already are not repeated. Every method gets the same cases, the same working grid and
the same processor time; the features of the frozen prior are part of it, also where an earlier run computed them.
Test cases decide nothing. Dice is per case, with a bootstrap interval over the test cases; the calibration pools
their voxels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from MedDiffFMLib.core.json_files import write_json
from MedDiffFMLib.core.precision import autocast
from MedDiffFMLib.core.progress import ProgressMeter
from MedDiffFMLib.datasets.datalist import read_datalist
from MedDiffFMLib.datasets.labels import label_table
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.segmentation.features import FeatureMethod
from MedDiffFMLib.segmentation.inputs import LabeledInput, dice
from MedDiffFMLib.segmentation.method import InferenceBudget, Method, Segmenter, make_method
from MedDiffFMLib.segmentation.outline import outlined
from MedDiffFMLib.training.finetune.cases import open_control_cases, prepare_cases
from MedDiffFMLib.training.finetune.segmentation_case import make_example

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "dynunet": ("dynunet", {"window": 48}),
    "unet-random": ("unet", {"scratch": True}),
    "linear": ("features", {"head": "linear"}),
    "nonlinear": ("features", {"head": "nonlinear"}),
    "fine-tuned": ("unet", {"head_first": 40}),
    "medsegdiff-plain": ("medsegdiff", {"dynamic": False, "parser": False}),
    "medsegdiff-dynamic": ("medsegdiff", {"parser": False}),
    "medsegdiff": ("medsegdiff", {}),
}
BATCH = {"features": 4}
RATE = {"features": 3e-3, "dynunet": 1e-3, "unet": 5e-4, "medsegdiff": 5e-4}
RELIABILITY_BINS = 10
BOOTSTRAPS = 2000


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        method: name in METHODS.
        count: training cases.
        seconds: of processor time.
    """

    method: str
    count: int
    seconds: float
    seed: int = 0


def examples_of(datalist: Path, folder: Path, spacing: float) -> tuple[list[LabeledInput], list[LabeledInput]]:
    """Training and test cases on the working grid; "test" rows stand where validation cases usually do."""
    entries = read_datalist(datalist, ("training", "test"))
    split = [replace(entry, split="validation" if entry.split == "test" else entry.split) for entry in entries]
    prepare_cases(split, folder / "cases", (), True, keep_labels=True, report=print)
    cases = [open_control_cases(folder / "cases", name) for name in ("training", "validation")]
    values = {int(n) for one in cases[0] for n in np.unique(np.asarray(one.mask)) if n > 0}
    labels = label_table(values, {})
    training, test = ([make_example(one.case, one.mask, labels, spacing) for one in part] for part in cases)
    return training, test


def precomputed(method: Method, segmenter: Segmenter, examples: list[LabeledInput]) -> float:
    """Have everything computed that training looks at again and again; the processor time that it ever took."""
    if not isinstance(method, FeatureMethod):  # nothing is kept, so it takes the same time whoever was first
        begin = time.process_time()
        segmenter.precompute(examples, InferenceBudget(torch.device("cpu")), ProgressMeter(1))
        return time.process_time() - begin
    total = 0.0
    for example in examples:
        folder = example.inputs.folder
        assert folder is not None
        note = folder / f"seconds-{getattr(method, 'key', method.name)}.json"
        begin = time.process_time()
        segmenter.precompute([example], InferenceBudget(torch.device("cpu")), ProgressMeter(1))
        if not note.exists():
            write_json({"seconds": time.process_time() - begin}, note)
        total += json.loads(note.read_text())["seconds"]
    segmenter.precompute(examples, InferenceBudget(torch.device("cpu")), ProgressMeter(1))
    return total


def train(method: Method, segmenter: Segmenter, examples: list[LabeledInput], trial: Trial) -> int:
    """Train for the given processor time; gives the number of steps."""
    spent = precomputed(method, segmenter, examples)
    begin = time.process_time() - spent
    rate, batch = RATE[method.name], BATCH.get(method.name, 1)
    optimizer = torch.optim.AdamW(segmenter.part.parameters(), rate, weight_decay=0.01)
    samples = method.samples(examples, trial.seed, 0, 10**6)
    segmenter.part.train()
    step = 0
    while (done := (time.process_time() - begin) / trial.seconds) < 1:
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 10) * min(1.0, 0.05 + 2 * (1 - done))
        drawn = method.collate([samples[step * batch + n] for n in range(batch)])
        with autocast(torch.device("cpu")):
            loss = segmenter.loss(drawn).mean()
        optimizer.zero_grad()
        loss.backward()
        if torch.isfinite(torch.nn.utils.clip_grad_norm_(segmenter.part.parameters(), 1.0)):
            optimizer.step()
        step += 1
    segmenter.eval()
    return step


def judge(segmenter: Segmenter, test: list[LabeledInput], samples: int) -> list[dict[str, Any]]:
    """Dice and calibration of each test case."""
    rows = []
    for example in test:
        begin = time.process_time()
        found = segmenter.predict(example.inputs, InferenceBudget(torch.device("cpu"), samples=samples))
        truth = example.truth()
        score = dice(outlined(found.probabilities), truth)
        for number, known in enumerate(example.known):
            if known:
                rows.append(
                    {
                        "case": example.name,
                        "class": number + 1,
                        "dice": round(float(score[number]), 4),
                        "seconds_to_predict": round(time.process_time() - begin, 1),
                        **calibration(found.probabilities[number], found.uncertainty[number], truth[number]),
                    }
                )
    return rows


def calibration(probability: torch.Tensor, uncertainty: torch.Tensor, truth: torch.Tensor) -> dict[str, Any]:
    """Counts for a reliability curve, and the share of wrong voxels among the most uncertain 10 % of the scan."""
    p, t = probability.flatten().clamp(0, 1), truth.flatten()
    index = (p * RELIABILITY_BINS).long().clamp(max=RELIABILITY_BINS - 1)
    bins = [
        torch.zeros(RELIABILITY_BINS).index_add_(0, index, values).tolist() for values in (torch.ones_like(p), p, t)
    ]
    wrong = ((p > 0.5) != (t > 0.5)).float()
    count = max(len(p) // 10, 1)
    most = uncertainty.flatten().topk(count).indices
    share = float(wrong[most].sum() / wrong.sum().clamp(min=1))
    return {"bins": bins, "error_in_most_uncertain_tenth": round(share, 4)}


def interval(values: list[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95 % bootstrap interval over cases."""
    array = np.array(values)
    rng = np.random.default_rng(seed)
    means = array[rng.integers(len(array), size=(BOOTSTRAPS, len(array)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(array.mean()), float(low), float(high)


def table(folder: Path) -> str:
    """The Markdown table of what ``scores.jsonl`` holds."""
    rows = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    cells: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[row["method"], row["count"]].append(row)
    counts = sorted({count for _, count in cells})
    lines = [
        "| method | " + " | ".join(f"{n} case{'s' if n > 1 else ''}" for n in counts) + " |",
        "|---|" + "---|" * len(counts),
    ]
    for method in dict.fromkeys(name for name, _ in cells):
        texts = [_cell(cells.get((method, count), [])) for count in counts]
        lines.append(f"| {method} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _cell(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    mean, low, high = interval([row["dice"] for row in rows])
    steps = sorted({row["steps"] for row in rows})
    return f"{mean:.2f} ({low:.2f} to {high:.2f}), {steps[0]} steps"


def expected_error(rows: list[dict[str, Any]]) -> float:
    """Expected calibration error over the pooled voxels of probability 0.1 and more."""
    count, said, real = np.array([row["bins"] for row in rows]).sum(0)[:, 1:]
    used = count > 0
    return float(np.abs(said[used] - real[used]).sum() / count.sum()) if used.any() else float("nan")


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time of each training")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 5, 100], help="cases; more than there are: all")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--spacing", type=float, default=2.0, help="working voxels, mm")
    parser.add_argument("--samples", type=int, default=5, help="size of ensembles")
    parser.add_argument("--prior", default="starter-ct")
    args = parser.parse_args()
    model = load_model(args.prior, device="cpu")
    training, test = examples_of(args.datalist, args.output, args.spacing)
    scores = args.output / "scores.jsonl"
    lines = scores.read_text().splitlines() if scores.exists() else []
    done = {(row["method"], row["count"]) for row in map(json.loads, lines)}
    for count in sorted({min(count, len(training)) for count in args.counts}):
        for name in args.methods:
            if (name, count) in done:
                continue
            trial = Trial(name, count, args.seconds)
            kind, options = METHODS[name]
            method = make_method(kind, options)
            if isinstance(method, FeatureMethod):
                method = replace(method, prior=model.sha256)
            torch.manual_seed(trial.seed)
            segmenter = method.build(len(training[0].known), model.engine.denoiser)
            steps = train(method, segmenter, training[:count], trial)
            with open(scores, "a") as stream:
                for row in judge(segmenter, test, args.samples):
                    stream.write(json.dumps({**vars(trial), "steps": steps, **row}) + "\n")
            print(f"{name}, {count} cases: {steps} steps", flush=True)
    summary = table(args.output)
    write_json({"table": summary}, args.output / "table.json", overwrite=True)
    print(summary)
    by_method: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in scores.read_text().splitlines():
        by_method[json.loads(line)["method"]].append(json.loads(line))
    for name, rows in by_method.items():
        tenth = np.mean([row["error_in_most_uncertain_tenth"] for row in rows])
        print(f"{name}: calibration error {expected_error(rows):.3f}, {100 * tenth:.0f} % of errors in the tenth")


if __name__ == "__main__":
    main()
