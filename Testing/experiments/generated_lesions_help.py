"""Does a segmenter that learns from few lesions learn more with generated ones added?

    python Testing/experiments/generated_lesions_help.py LESIONS.json -o FOLDER [--real 3] [--generated 12] [--seeds 3]

LESIONS.json is a decathlon datalist: "training" is the pool from which each seed draws its few real cases, "free" are
scans without such lesions into which ``generate_lesion`` puts some, "validation" is where choices are made, "test" is
what is reported (with --split test). Generated lesions have the density that the ControlNet learned for such
surroundings, lie in soft tissue near the skin (with --muscle, not in fat), are as large as --diameters says, and are
kept only if the check of their outline in the task itself passes. Arms:

- ``real``: the few real cases;
- ``+ generated``: those, and generated lesions in the free scans, each case as often as any other;
- ``+ generated, half``: the same, but half of what is learned from is real (remedy: weight of the generated);
- ``generated, then real``: the first half of the steps as ``+ generated``, the second on the real cases alone (remedy:
  the last word is the real ones');
- ``generated alone``: no real case at all.

Networks: the non-linear head on the frozen prior's features, and DynUNet from scratch, at equal steps in all arms. One
line of ``scores.jsonl`` for each case; what is there already is not made again. Differences are paired, with 95 %
intervals over patients of the means over seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import MedDiffFMLib as mdf
from MedDiffFMLib.conditioning.region import body_mask
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.core.precision import autocast
from MedDiffFMLib.core.progress import ProgressMeter
from MedDiffFMLib.datasets.datalist import Entry, read_datalist
from MedDiffFMLib.datasets.labels import label_table
from MedDiffFMLib.evaluation.quality.metrics import bootstrap
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import FoundationModel
from MedDiffFMLib.segmentation.inputs import LabeledInput, dice
from MedDiffFMLib.segmentation.method import InferenceBudget, Method, Segmenter, make_method
from MedDiffFMLib.segmentation.outline import outlined
from MedDiffFMLib.training.finetune.cases import open_control_cases, prepare_cases
from MedDiffFMLib.training.finetune.segmentation_case import make_example

SPLITS = ("training", "free", "validation", "test")
SOFT_HU, MUSCLE_HU = (-160.0, 120.0), (10.0, 90.0)
NEAR_SKIN_MM = 70.0
MARGIN_MM = 50.0
"""Of the box around a lesion that a case is, as in the real cases."""
MOST_ATTEMPTS = 3
"""Times as many lesions as are wanted that are drawn at most."""
NETWORKS: dict[str, tuple[str, dict[str, Any], float]] = {
    "head": ("features", {"window": 64, "points": 512}, 3e-3),
    "dynunet": ("dynunet", {"window": 32}, 1e-3),
}
BATCH = {"head": 4, "dynunet": 2}
REAL, ADDED, HALF, THEN, ALONE = "real", "+ generated", "+ generated, half", "generated, then real", "generated alone"
ARMS = (REAL, ADDED, HALF, THEN, ALONE)
FOUND = 0.5


def room_of(volume: Volume, hounsfield: tuple[float, float]) -> np.ndarray:
    """Tissue of some density near the skin, bool (k, j, i)."""
    from scipy.ndimage import binary_closing, binary_opening, distance_transform_edt, gaussian_filter

    edges = np.array(volume.spacing[::-1])
    body = body_mask(volume.voxels)
    smooth = gaussian_filter(volume.voxels.astype(np.float32), 2.0 / edges)
    soft = body & (smooth > hounsfield[0]) & (smooth < hounsfield[1])
    soft = binary_opening(binary_closing(soft, iterations=1), iterations=2)
    depth = distance_transform_edt(np.pad(body, ((0, 0), (1, 1), (1, 1))), sampling=edges)[:, 1:-1, 1:-1]
    return soft & (depth < NEAR_SKIN_MM)


def cropped(volume: Volume, mask: np.ndarray) -> tuple[Volume, Volume]:
    """CT and mask, cut to MARGIN_MM around what is marked."""
    from scipy.ndimage import find_objects

    (whole,) = find_objects(mask.astype(np.uint8))
    margin = np.ceil(MARGIN_MM / np.array(volume.spacing[::-1])).astype(int)
    box = tuple(slice(max(p.start - m, 0), p.stop + m) for p, m in zip(whole, margin, strict=True))
    ijk_to_ras = volume.ijk_to_ras.copy()
    ijk_to_ras[:3, 3] += volume.ijk_to_ras[:3, :3] @ np.array([part.start for part in box[::-1]])
    return (
        Volume(volume.voxels[box], ijk_to_ras, "image"),
        Volume(mask[box].astype(np.uint8), ijk_to_ras, "mask"),
    )


@dataclass(frozen=True)
class Maker:
    """Makes cases with a generated lesion, as files and a line of ``generated.jsonl`` each.

    Attributes:
        diameters: least and largest, mm; drawn evenly in their logarithm.
        muscle: put them where it is as dense as muscle, not into fat.
    """

    folder: Path
    model: Any
    diameters: tuple[float, float]
    muscle: bool = False

    def cases(self, sources: Sequence[Entry], count: int) -> list[Entry]:
        """So many good lesions in the sources, in turn; those of an earlier run are used again."""
        made: list[Entry] = []
        for number in range(MOST_ATTEMPTS * count):
            if len(made) == count:
                break
            source = sources[number % len(sources)]
            facts = self._fact(f"{'muscle' if self.muscle else 'free'}-{number:02d}", source, number)
            if facts["good"]:
                made.append(_entry(self.folder / facts["name"]))
        return made

    def _fact(self, name: str, source: Entry, number: int) -> dict[str, Any]:
        log = self.folder / f"{name}.json"
        if not log.exists():
            begin = time.process_time()
            facts = {"name": name, "source": source.name, **self._make(name, source, number)}
            facts["seconds"] = round(time.process_time() - begin, 1)
            print(facts, flush=True)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(json.dumps(facts), encoding="utf-8")
        return dict(json.loads(log.read_text(encoding="utf-8")))

    def _make(self, name: str, source: Entry, number: int) -> dict[str, Any]:
        rng = np.random.default_rng([7, number])
        low, high = np.log(self.diameters)
        diameter = round(float(np.exp(rng.uniform(low, high))), 1)
        volume = mdf.read_volume(source.image)
        hounsfield = MUSCLE_HU if self.muscle else SOFT_HU
        room = Volume(room_of(volume, hounsfield).astype(np.uint8), volume.ijk_to_ras, "room")
        try:
            result = mdf.generate_lesion(volume, self.model, mask=room, diameter=diameter, seed=number)
        except InputError as error:  # no room for one of this size
            return {"good": False, "diameter": diameter, "reason": str(error)}
        case = cropped(result.volumes["with_lesion"], result.volumes["lesion"].voxels > 0)
        self.folder.mkdir(parents=True, exist_ok=True)
        for part, suffix in zip(case, ("", "_mask"), strict=True):
            write_volume(part, self.folder / f"{name}{suffix}.nrrd", overwrite=True)
        facts = result.facts
        return {
            "good": bool(facts["check"]["good"]), "diameter": diameter, "made_mm": facts["diameter_mm"],
            "mean_hu": facts["mean_hu_after"], "around_hu": facts["surroundings_hu"], "check": facts["check"],
        }  # fmt: skip


def _entry(stem: Path) -> Entry:
    image, mask = stem.with_name(f"{stem.name}.nrrd"), stem.with_name(f"{stem.name}_mask.nrrd")
    return Entry(stem.name, "training", image, stem.name, None, {"label": mask})


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
    rate: float,
) -> None:  # fmt: skip
    """As many steps as there are rows of odds, on cases drawn by them."""
    steps, rng = len(odds), np.random.default_rng(seed)
    segmenter.precompute(examples, InferenceBudget(torch.device("cpu")), ProgressMeter(len(examples)))
    sets = [method.samples([example], seed, 0, steps * batch) for example in examples]
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
    """Dice of each case."""
    rows = []
    for example in examples:
        found = segmenter.predict(example.inputs, InferenceBudget(torch.device("cpu")))
        score = float(dice(outlined(found.probabilities), example.truth())[0])
        rows.append({"case": example.name, "dice": round(score, 4)})
    return rows


def table(rows: list[dict[str, Any]], split: str) -> str:
    """Markdown: Dice of each arm and its paired difference from the real cases alone."""
    rows = [row for row in rows if row["split"] == split]
    lines = ["| network, learned from | Dice | found (Dice of 0.5) | more than real alone | by seed |"]
    lines.append("|---|---:|---:|---:|---:|")
    for network in dict.fromkeys(row["network"] for row in rows):
        by_arm: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        for row in rows:
            if row["network"] == network:
                by_arm[row["arm"]][row["case"]][row["seed"]] = row["dice"]
        alone = by_arm[REAL]
        for arm, cases in by_arm.items():
            mean = bootstrap([float(np.mean(list(seeds.values()))) for seeds in cases.values()], list(cases))
            found = np.mean([value >= FOUND for seeds in cases.values() for value in seeds.values()])
            cells = [f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]", f"{100 * found:.0f} %"]
            if arm != REAL:
                gain = {c: [s[n] - alone[c][n] for n in s if n in alone[c]] for c, s in cases.items()}
                paired = bootstrap([float(np.mean(g)) for g in gain.values()], list(gain))
                seeds = sorted({n for s in cases.values() for n in s})
                each = [np.mean([cases[c][n] - alone[c][n] for c in cases if n in cases[c]]) for n in seeds]
                cells += [f"{paired.mean:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]"]
                cells += [", ".join(f"{value:+.3f}" for value in each)]
            else:
                cells += ["", ""]
            lines.append(f"| {network}, {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


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
    parser.add_argument("--muscle", action="store_true", help="put them where it is as dense as muscle, not into fat")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--prior", default="starter-ct")
    parser.add_argument("--generate-only", action="store_true")
    args = parser.parse_args()
    model = mdf.load_model(args.prior)
    entries = read_datalist(args.datalist, SPLITS)
    of = {split: [e for e in entries if e.split == split] for split in SPLITS}
    maker = Maker(args.output / "generated", model, tuple(args.diameters), args.muscle)
    generated = maker.cases(of["free"], args.generated)
    if args.generate_only:
        return
    whole = [*of["training"], *generated, *of[args.split]]
    examples = examples_of(whole, args.output / "prepared", args.spacing)
    scores = args.output / "scores.jsonl"
    rows = [json.loads(line) for line in scores.read_text().splitlines()] if scores.exists() else []
    done = {(row["network"], row["arm"], row["seed"], row["split"], row["generated"]) for row in rows}
    for network in args.networks:
        for seed in range(args.seeds):
            order = np.random.default_rng(seed).permutation(len(of["training"]))[: args.real]
            real = [of["training"][n].name for n in order]
            for arm in args.arms:
                told = f"{arm}, in muscle" if args.muscle and arm != REAL else arm
                if (network, told, seed, args.split, args.generated) in done:
                    continue
                others = [e.name for e in generated] if arm != REAL else []
                names = [*(real if arm != ALONE else []), *others]
                odds = odds_of(len(names) - len(others), len(others), arm, args.steps)
                method, segmenter = fresh(network, model, seed)
                begin = time.process_time()
                learned = [examples[name] for name in names]
                train(method, segmenter, learned, odds, seed, BATCH[network], NETWORKS[network][2])
                facts = {
                    "network": network, "arm": told, "seed": seed, "split": args.split, "generated": args.generated,
                    "steps": args.steps, "seconds": round(time.process_time() - begin, 1),
                }  # fmt: skip
                new = [{**facts, **row} for row in judge(segmenter, [examples[e.name] for e in of[args.split]])]
                with open(scores, "a", encoding="utf-8") as stream:
                    stream.writelines(json.dumps(row) + "\n" for row in new)
                rows += new
                print(facts, f"Dice {np.mean([row['dice'] for row in new]):.3f}", flush=True)
    print(table(rows, args.split))


if __name__ == "__main__":
    main()
