"""Does a segmenter that learns from few lesions learn more with generated ones added?

    python -m Testing.experiments.generated_lesions_help LESIONS.json -o FOLDER [--real 3] [--generated 12] [--seeds 3]
        [--place anywhere|muscle|own] [--like pool|few [--painted]]

LESIONS.json is a decathlon datalist: "training" is the pool from which each seed draws its few real cases, "free" are
scans without such lesions into which ``generate_lesion`` puts some, "validation" is where choices are made, "test" is
what is reported (with --split test). Where the lesions are put (--place):

- ``anywhere``: in soft tissue of the free scans, near the skin;
- ``muscle``: the same, but where it is as dense as muscle (the liver is, too), not in fat;
- ``own``: in the scans of the real cases that the seed has, over the real lesion and up to 15 % of its diameter
  beyond, so that scanner, surroundings and much of the outline are real.

Without --like a lesion has the density that the ControlNet learned for such surroundings, the texture that it makes, a
size out of --diameters, and is kept only if the check of its outline in the task passes. With --like each takes after
a real lesion, in turn one of the pool or of the few real cases that the seed has: its size (not with ``own``), its
contrast to the muscle around it, and its spread of HU in units of that muscle's. Lesions so much like muscle have no
outline at half contrast, so the check is written down and decides nothing. With --painted the same masks are filled
with noise of that mean and spread, no network taking part: what the generator is worth.

Arms:

- ``real``: the few real cases;
- ``+ other real``: those, and as many other real cases of the pool as else generated ones (what can be hoped for);
- ``+ generated``: the real cases and the generated lesions, each case as often as any other;
- ``+ generated, half``: the same, but half of what is learned from is real (remedy: weight of the generated);
- ``generated, then real``: the first half of the steps as ``+ generated``, the second on the real cases alone (remedy:
  the last word is the real ones');
- ``generated alone``: no real case at all.

Networks: the non-linear head on the frozen prior's features, and DynUNet from scratch, at equal steps in all arms. One
line of ``scores.jsonl`` for each case; what is there already is not made again, so that one folder serves for any
number of calls with other options. Differences are paired, with 95 % intervals over patients of the means over seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import MedDiffFMLib as mdf
from MedDiffFMLib.core.precision import autocast
from MedDiffFMLib.core.progress import ProgressMeter
from MedDiffFMLib.datasets.datalist import Entry, read_datalist
from MedDiffFMLib.datasets.labels import label_table
from MedDiffFMLib.evaluation.quality.metrics import bootstrap
from MedDiffFMLib.models.checkpoint import FoundationModel
from MedDiffFMLib.segmentation.inputs import LabeledInput, dice
from MedDiffFMLib.segmentation.method import InferenceBudget, Method, Segmenter, make_method
from MedDiffFMLib.segmentation.outline import outlined
from MedDiffFMLib.training.finetune.cases import open_control_cases, prepare_cases
from MedDiffFMLib.training.finetune.segmentation_case import make_example
from Testing.experiments.lesion_maker import ANYWHERE, FEW, LIKE, OWN, PLACES, Maker, look_of

SPLITS = ("training", "free", "validation", "test")
NETWORKS: dict[str, tuple[str, dict[str, Any], float]] = {
    "head": ("features", {"window": 64, "points": 512}, 3e-3),
    "dynunet": ("dynunet", {"window": 32}, 1e-3),
}
BATCH = {"head": 4, "dynunet": 2}
REAL, ADDED, HALF, THEN, ALONE = "real", "+ generated", "+ generated, half", "generated, then real", "generated alone"
OTHERS = "+ other real"
ARMS = (REAL, OTHERS, ADDED, HALF, THEN, ALONE)
MADE = (ADDED, HALF, THEN, ALONE)
FOUND = 0.5


def examples_of(entries: Sequence[Entry], folder: Path, spacing: float) -> dict[str, LabeledInput]:
    """Each case by name on the working grid; whatever is marked is one class."""
    prepare_cases([replace(e, split="training") for e in entries], folder / "cases", (), True, keep_labels=True)
    cases = open_control_cases(folder / "cases", "training")
    labels = label_table({1}, {1: "lesion"})
    return {one.case.name: make_example(one.case, np.asarray(one.mask) > 0, labels, spacing) for one in cases}


def odds_of(real: int, others: int, arm: str, steps: int) -> np.ndarray:
    """How often each case is drawn at each step, (steps, cases); the real ones are the first."""
    odds = np.ones((steps, real + others))
    if arm == HALF:
        odds[:, :real] *= others / real
    if arm == THEN:
        odds[steps // 2 :, real:] = 0
    return odds / odds.sum(1, keepdims=True)


def train(
    method: Method, segmenter: Segmenter, examples: list[LabeledInput], odds: np.ndarray, seed: int, batch: int,
    rate: float, kept: dict[str, Any],
) -> None:  # fmt: skip
    """As many steps as there are rows of odds, on cases drawn by them.

    Args:
        kept: samples by case for the other arms of the seed, whose features are read once.
    """
    steps, rng = len(odds), np.random.default_rng(seed)
    segmenter.precompute(examples, InferenceBudget(torch.device("cpu")), ProgressMeter(len(examples)))
    for example in examples:
        if example.name not in kept:
            kept[example.name] = method.samples([example], seed, 0, steps * batch)
    sets = [kept[example.name] for example in examples]
    chosen = [rng.choice(len(sets), size=batch, p=row) for row in odds]
    optimizer = torch.optim.AdamW(segmenter.part.parameters(), rate, weight_decay=0.01)
    segmenter.part.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 20, (steps - step) / (0.3 * steps))
        drawn = method.collate([sets[int(c)][step * batch + n] for n, c in enumerate(chosen[step])])
        with autocast(torch.device("cpu")):
            loss = segmenter.loss(drawn).mean()
        optimizer.zero_grad()
        loss.backward()
        if torch.isfinite(torch.nn.utils.clip_grad_norm_(segmenter.part.parameters(), 1.0)):
            optimizer.step()
    segmenter.eval()


def fresh(network: str, model: FoundationModel, seed: int) -> tuple[Method, Segmenter]:
    """A network that has learned nothing yet."""
    kind, options, _ = NETWORKS[network]
    method = make_method(kind, options)
    if hasattr(method, "prior"):
        method = replace(method, prior=model.sha256)  # type: ignore[type-var]
    torch.manual_seed(seed)
    return method, method.build(1, model.engine.denoiser)


def judge(segmenter: Segmenter, examples: Sequence[LabeledInput]) -> list[dict[str, Any]]:
    """Dice of each case, outlined as ``segment`` does it, and at a probability of 0.5."""
    rows = []
    for example in examples:
        found = segmenter.predict(example.inputs, InferenceBudget(torch.device("cpu"))).probabilities
        best, half = (float(dice(mask, example.truth())[0]) for mask in (outlined(found), found > 0.5))
        rows.append({"case": example.name, "dice": round(best, 4), "dice_at_half": round(half, 4)})
    return rows


def table(rows: list[dict[str, Any]], split: str) -> str:
    """Markdown: Dice of each arm and its paired difference from the real cases alone, as many of them."""
    scores: dict[tuple[str, int, int], dict[str, Any]] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for row in rows:
        if row["split"] == split:
            told = " ".join([row["arm"], *([f"({row['added']}, {row['place']})"] if row["place"] else [])])
            scores[row["network"], row["real"], row["steps"]][told][row["case"]][row["seed"]] = row["dice"]
    lines = ["| network, real cases | learned from | Dice | found (Dice of 0.5) | more than real alone | by seed |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    for (network, real, _), arms in sorted(scores.items()):
        for arm, cases in arms.items():
            lines.append(f"| {network}, {real} | {arm} | " + " | ".join(_cells(cases, arms.get(REAL))) + " |")
    return "\n".join(lines) + "\n"


def _cells(cases: dict[str, dict[int, float]], alone: dict[str, dict[int, float]] | None) -> list[str]:
    """What a row of the table says of an arm: Dice by case and seed, and those of the real cases alone."""
    mean = bootstrap([float(np.mean(list(seeds.values()))) for seeds in cases.values()], list(cases))
    found = np.mean([value >= FOUND for seeds in cases.values() for value in seeds.values()])
    cells = [f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]", f"{100 * found:.0f} %"]
    if alone is None or alone is cases:
        return [*cells, "", ""]
    gain = {c: {n: s[n] - alone[c][n] for n in s if n in alone[c]} for c, s in cases.items()}
    paired = bootstrap([float(np.mean(list(g.values()))) for g in gain.values()], list(gain))
    by_seed = [np.mean([g[n] for g in gain.values() if n in g]) for n in sorted({n for g in gain.values() for n in g})]
    cells += [f"{paired.mean:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]"]
    return [*cells, ", ".join(f"{value:+.3f}" for value in by_seed)]


def generated_for(
    maker: Maker, training: Sequence[Entry], free: Sequence[Entry], few: Sequence[Sequence[Entry]], count: int
) -> list[list[Entry]]:
    """So many generated lesions for each seed.

    Args:
        maker: without looks.
        training: the pool, and
        few: the real cases of it that each seed has.
    """
    looks = {e.name: look_of(e) for e in training} if maker.like else {}
    made = []
    for seed, real in enumerate(few):
        known = real if maker.like == FEW else training
        like = tuple(look for e in known if (look := looks.get(e.name)) is not None)
        own = replace(maker, looks=like, seed=seed if maker.like == FEW else None)
        made.append(own.cases(real if maker.place == OWN else free, count))
    return made


def main() -> None:
    """Make the lesions, train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--real", type=int, default=3)
    parser.add_argument("--generated", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=[REAL, ADDED], choices=ARMS)
    parser.add_argument("--networks", nargs="+", default=["head"], choices=NETWORKS)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--spacing", type=float, default=4.0)
    parser.add_argument("--diameters", type=float, nargs=2, default=(25.0, 80.0))
    parser.add_argument("--place", default=ANYWHERE, choices=PLACES)
    parser.add_argument("--like", default="", choices=LIKE, help="as large, dense and rough as real ones of these")
    parser.add_argument("--painted", action="store_true", help="fill them with noise; needs --like")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--prior", default="starter-ct")
    parser.add_argument("--generate-only", action="store_true")
    args = parser.parse_args()
    if args.painted and not args.like:
        parser.error("--painted needs --like")
    model = mdf.load_model(args.prior)
    entries = read_datalist(args.datalist, SPLITS)
    of = {split: [e for e in entries if e.split == split] for split in SPLITS}
    orders = [np.random.default_rng(seed).permutation(len(of["training"])) for seed in range(args.seeds)]
    pools = [[of["training"][n] for n in order] for order in orders]
    sizes = tuple(args.diameters)
    maker = Maker(args.output / "generated", model, sizes, args.place, like=args.like, painted=args.painted)
    few = [pool[: args.real] for pool in pools]
    generated = generated_for(maker, of["training"], of["free"], few, args.generated)
    if args.generate_only:
        return
    every = {e.name: e for e in [*of["training"], *(e for made in generated for e in made), *of[args.split]]}
    examples = examples_of(list(every.values()), args.output / "prepared", args.spacing)
    scores = args.output / "scores.jsonl"
    rows = [json.loads(line) for line in scores.read_text().splitlines()] if scores.exists() else []
    for network in args.networks:
        for seed, (pool, made) in enumerate(zip(pools, generated, strict=True)):
            kept: dict[str, Any] = {}
            for arm in args.arms:
                count = {REAL: 0, OTHERS: args.generated}.get(arm, len(made))
                told = {
                    "network": network, "arm": arm, "place": maker.kind if arm in MADE else "", "seed": seed,
                    "split": args.split, "real": args.real, "added": count, "steps": args.steps,
                }  # fmt: skip
                if any(told.items() <= row.items() for row in rows):
                    continue
                names = [e.name for e in (pool[: args.real] if arm != ALONE else [])]
                more = {REAL: [], OTHERS: pool[args.real : args.real + count]}.get(arm, made)
                learned = [examples[name] for name in [*names, *(e.name for e in more)]]
                method, segmenter = fresh(network, model, seed)
                begin = time.process_time()
                odds = odds_of(len(names), len(more), arm, args.steps)
                train(method, segmenter, learned, odds, seed, BATCH[network], NETWORKS[network][2], kept)
                facts = told | {"seconds": round(time.process_time() - begin, 1)}
                new = [{**facts, **row} for row in judge(segmenter, [examples[e.name] for e in of[args.split]])]
                with open(scores, "a", encoding="utf-8") as stream:
                    stream.writelines(json.dumps(row) + "\n" for row in new)
                rows += new
                print(facts, f"Dice {np.mean([row['dice'] for row in new]):.3f}", flush=True)
    print(table(rows, args.split))


if __name__ == "__main__":
    main()
