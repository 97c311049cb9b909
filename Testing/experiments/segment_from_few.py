"""Dice and calibration of organs outlined in 1, 2, 5 and 20 cases: heads on the prior beside networks from scratch.

    python -m Testing.experiments.segment_from_few DATALIST -o FOLDER [--counts 1 2 5 20] [--seeds 3] [--seconds 60]

DATALIST is a decathlon JSON: "training" is the pool from which each seed draws its cases anew, "validation" decides
(temperatures, nothing else here), "test" is reported; each case has an image and a label. The heads ("features") are
trained for --steps steps on features that are computed once a case and kept in FOLDER; the networks ("dynunet",
"fine-tuned", "unet-random", "medsegdiff") for --seconds of processor time, with the seeds --network-seeds. Each
result is a line of ``scores.jsonl``, and none that is there already is made again; the tables are printed, and in
``table.md``, among them how far each row is from the non-linear head that learned from the same cases.

Calibration: expected error over voxels within 12 mm of the structure, and over those of probability 0.1 and more; as
it comes, with a temperature from validation patients, and with one from leaving out patients of the very cases that
were learned from ("crossed", from two cases on), which is what fine-tuning does when it has no others.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from MedDiffFMLib.core.precision import autocast, choose_precision
from MedDiffFMLib.core.progress import ProgressMeter
from MedDiffFMLib.datasets.datalist import read_datalist
from MedDiffFMLib.datasets.labels import label_table
from MedDiffFMLib.evaluation.quality.uncertainty import reliability
from MedDiffFMLib.models.checkpoint import FoundationModel, build_denoiser, load_model
from MedDiffFMLib.segmentation.calibration import LogitCounts, scaled
from MedDiffFMLib.segmentation.context import ContextHead, context_sample, train_context
from MedDiffFMLib.segmentation.features import Bank, FeatureMethod, FeatureSegmenter, StoredFeatures, smoothed
from MedDiffFMLib.segmentation.inputs import LabeledInput, class_shares, dice
from MedDiffFMLib.segmentation.method import InferenceBudget, Segmenter, make_method
from MedDiffFMLib.segmentation.outline import outlined
from MedDiffFMLib.segmentation.point_head import PointHead, to_voxels
from MedDiffFMLib.training.finetune.cases import open_control_cases, prepare_cases
from MedDiffFMLib.training.finetune.segmentation_case import make_example
from Testing.experiments.segmentation import METHODS, Trial, interval, train

HEADS = {
    "linear": ("prior", "linear"),
    "non-linear": ("prior", "nonlinear"),
    "with context": ("prior", "nonlinear"),
    "linear, random weights": ("random", "linear"),
    "non-linear, random weights": ("random", "nonlinear"),
}
CONTEXT = "with context"
"""The default of the product: the non-linear head, and with two cases and more a context head that looks again."""
NETWORKS: dict[str, dict[str, Any]] = {
    "fine-tuned": {"window": 32},
    "unet-random": {"window": 32},
    "medsegdiff": {"fusion": "mean", "steps": 1},
    "dynunet": {},
}
"""What differs from the row of METHODS. In a window of 64 the prior's network makes some 20 steps in 60 s. STAPLE's
posterior is no probability, whose calibration could be judged; and of a patient each draw costs some 25 s."""
DRAWS = 1
"""Masks that MedSegDiff draws of a patient."""
BASELINE = "non-linear"
"""Row with which the others are compared, patient by patient."""
POINTS, BATCH, RATE = 512, 4, 3e-3
BANK = 20_000
NEAR_MM = 12.0
MOST_CROSSED = 2
"""Cases of a fold on which a crossed temperature is fitted."""
MOST_FOLDS = 5
SPLITS = ("training", "validation", "test")


@dataclass(frozen=True)
class Job:
    """One training: what it learns from, and what is left out of it where it serves the calibration of another.

    Attributes:
        method: name in HEADS or NETWORKS.
        fold: -1 for the head itself, else the number of the part that it leaves out.
    """

    method: str
    count: int
    seed: int
    fold: int = -1

    def cases(self, pool: list[LabeledInput]) -> list[LabeledInput]:
        """Cases of the seed; the first one knows every class, so that one case alone has them all."""
        order = [pool[n] for n in np.random.default_rng(self.seed).permutation(len(pool))]
        first = next(example for example in order if all(example.known))
        return [first, *(example for example in order if example is not first)][: self.count]

    def left_out(self, pool: list[LabeledInput]) -> list[LabeledInput]:
        """Cases of the fold."""
        return [] if self.fold < 0 else self.cases(pool)[self.fold :: folds_of(self.count)]

    def learned(self, pool: list[LabeledInput]) -> list[LabeledInput]:
        """Cases without those of the fold."""
        out = {example.name for example in self.left_out(pool)}
        return [example for example in self.cases(pool) if example.name not in out]


def folds_of(count: int) -> int:
    """Parts into which cases are divided for a crossed temperature."""
    return min(count, MOST_FOLDS)


def examples_of(datalist: Path, folder: Path, spacing: float) -> dict[str, list[LabeledInput]]:
    """Cases of each split on the working grid."""
    entries = read_datalist(datalist, SPLITS)
    prepare_cases([replace(e, split="training") for e in entries], folder / "cases", (), True, keep_labels=True)
    cases = {one.case.name: one for one in open_control_cases(folder / "cases", "training")}
    values = {int(n) for one in cases.values() for n in np.unique(np.asarray(one.mask)) if n > 0}
    labels = label_table(values, {})
    made = {name: make_example(one.case, one.mask, labels, spacing) for name, one in cases.items()}
    return {split: [made[e.name] for e in entries if e.split == split and e.name in made] for split in SPLITS}


def random_prior(model: FoundationModel) -> torch.nn.Module:
    """The prior's network with fresh weights."""
    torch.manual_seed(0)
    return build_denoiser(model.config).eval().requires_grad_(False)


class Heads:
    """Heads on the features of one prior, the trained one or one of random weights.

    Args:
        key: names the weights, for the features' folders.
        folder: of the trained heads.
    """

    def __init__(self, prior: torch.nn.Module, key: str, classes: int, folder: Path, options: dict[str, Any]) -> None:
        self.prior, self.classes, self.folder = prior, classes, folder
        precision = str(choose_precision("auto", torch.device("cpu"))).removeprefix("torch.")
        self.method = FeatureMethod(prior=key, precision=precision, **options)
        self._banks: dict[str, Bank] = {}

    def bank(self, example: LabeledInput) -> Bank:
        """Points of a case with their features, computed when they are first asked for."""
        if example.name not in self._banks:
            self.features(example)
            self._banks[example.name] = Bank(self.method, example, BANK)
        return self._banks[example.name]

    def context(self, job: Job, pool: list[LabeledInput], steps: int) -> ContextHead | None:
        """What looks again at the map of a job's head; None for other methods and single cases."""
        if job.method != CONTEXT or job.count < 2:
            return None
        parts = [replace(job, fold=f) for f in range(folds_of(job.count))]
        trained, samples = [self.trained(part, pool, steps) for part in parts], []
        begin = time.process_time()
        for part, head in zip(parts, trained, strict=True):
            taught = np.any([example.known for example in part.learned(pool)], axis=0)
            for seed, case in enumerate(part.left_out(pool)):
                drawn, known = self.predict([head], case)[0], np.logical_and(case.known, taught).tolist()
                samples.append(context_sample(np.asarray(case.inputs.voxels), drawn, case.truth(), known, seed))
        found = train_context(samples, class_shares(job.cases(pool)), job.seed)
        print(f"{job}: context {time.process_time() - begin:.1f} s beside its folds", flush=True)
        return found

    def features(self, example: LabeledInput) -> StoredFeatures:
        """Features of a case, computed when they are first asked for."""
        assert example.inputs.folder is not None
        if not (example.inputs.folder / f"features-{self.method.key}" / "done.json").exists():
            segmenter, begin = self.method.build(self.classes, self.prior), time.process_time()
            segmenter.precompute([example], InferenceBudget(torch.device("cpu")), ProgressMeter(1))
            print(f"features of {example.name}: {time.process_time() - begin:.1f} s", flush=True)
        return StoredFeatures(self.method, example.inputs)

    def trained(self, job: Job, pool: list[LabeledInput], steps: int) -> FeatureSegmenter:
        """The head of a job, from its file where an earlier run has trained it."""
        torch.manual_seed(job.seed)
        segmenter = replace(self.method, head=HEADS[job.method][1]).build(self.classes, self.prior)
        assert isinstance(segmenter, FeatureSegmenter)
        name = job.method.replace(CONTEXT, BASELINE)
        path = self.folder / f"{self.method.key}-{name}-{job.count}-{job.seed}-{job.fold}-{steps}.pt"
        if not path.exists():
            for example in job.learned(pool):
                self.bank(example)  # not in the time: the same for all
            begin = time.process_time()
            self._train(segmenter, job.learned(pool), job.seed, steps)
            print(f"{job}: {time.process_time() - begin:.1f} s", flush=True)
            path.parent.mkdir(exist_ok=True)
            torch.save(segmenter.part.state_dict(), path)
        segmenter.part.load_state_dict(torch.load(path, weights_only=True))
        segmenter.eval()
        return segmenter

    def _train(self, segmenter: FeatureSegmenter, examples: list[LabeledInput], seed: int, steps: int) -> None:
        """So many steps of points of the cases."""
        assert isinstance(segmenter.part, PointHead)
        rng = np.random.default_rng(seed)
        drawn = [self.bank(example).draw(POINTS, rng)[0] for example in examples]
        segmenter.part.standardize(torch.cat(drawn))
        segmenter.expect(class_shares(examples))
        optimizer = torch.optim.AdamW(segmenter.part.parameters(), RATE, weight_decay=0.01)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 10, 0.05 + 2 * (1 - step / steps))
            chosen = [examples[n] for n in rng.integers(len(examples), size=BATCH)]
            loss = segmenter.loss(self.method.collate([self._sample(example, rng) for example in chosen])).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(segmenter.part.parameters(), 1.0)
            optimizer.step()

    def _sample(self, example: LabeledInput, rng: np.random.Generator) -> dict[str, Any]:
        features, target, weight = self.bank(example).draw(POINTS, rng)
        known = torch.tensor(example.known, dtype=torch.float32)
        return {"features": features, "target": target, "weight": weight, "known": known}

    @torch.inference_mode()
    def predict(self, heads: list[FeatureSegmenter], example: LabeledInput) -> list[torch.Tensor]:
        """Probabilities (C, D, H, W) of each head; the features are put together once for all of them."""
        stored = self.features(example)
        depth, height, width = stored.shape
        slabs: list[list[torch.Tensor]] = [[] for _ in heads]
        for k in range(depth):
            plane = stored.plane(k)
            for number, head in enumerate(heads):
                with autocast(torch.device("cpu")):
                    logits = head.part(plane).float()
                slabs[number].append(to_voxels(logits, (1, height, width)).half())
        d, h, w = example.inputs.shape
        return [smoothed(torch.cat(slab, dim=1)[:, :d, :h, :w].float().sigmoid()) for slab in slabs]


def rows_of(
    probabilities: torch.Tensor, example: LabeledInput, temperatures: dict[str, list[float]]
) -> list[dict[str, Any]]:
    """Dice and calibration of each known class of a case.

    ``dice`` is of the outlines as the task draws them without a temperature, ``dice_half`` of those from 0.5 on.
    """
    truth = example.truth()
    scores, half = dice(outlined(probabilities), truth), dice(probabilities > 0.5, truth)
    versions = {"none": probabilities, **{name: scaled(probabilities, t) for name, t in temperatures.items()}}
    rows = []
    for number, known in enumerate(example.known):
        if known:
            real = truth[number].numpy() > 0.5
            near = _near(real, example.inputs.spacing)
            bins = {name: _bins(p[number].numpy(), real, near) for name, p in versions.items()}
            figures = {"dice": round(float(scores[number]), 4), "dice_half": round(float(half[number]), 4)}
            rows.append({"case": example.name, "class": number + 1, **figures, "bins": bins})
    return rows


def _near(inside: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~inside, sampling=spacing) <= NEAR_MM


def _bins(probability: np.ndarray, real: np.ndarray, near: np.ndarray) -> dict[str, list[list[float]]]:
    """Voxels, sum of probabilities and voxels inside by bins of probability, of both sets that are judged."""
    sets = {"near": near, "tenth": probability >= 0.1}
    found = {name: reliability(probability[part], real[part]) for name, part in sets.items()}
    return {
        name: [one.voxels.tolist(), *(np.nan_to_num(mean * one.voxels).round(3).tolist() for mean in one[1:])]
        for name, one in found.items()
    }


def calibration_error(rows: list[dict[str, Any]], version: str, part: str) -> float:
    """Expected calibration error of the pooled voxels of some rows."""
    count, said, real = np.array([row["bins"][version][part] for row in rows if version in row["bins"]]).sum(0)
    return float(np.abs(said - real).sum() / max(count.sum(), 1))


def run_heads(
    heads: Heads, examples: dict[str, list[LabeledInput]], jobs: list[Job], steps: int, tag: str
) -> list[dict[str, Any]]:
    """Train the heads of some jobs, fit their temperatures, and judge them on the test cases."""
    pool = examples["training"]
    trained = [heads.trained(job, pool, steps) for job in jobs]
    contexts = [heads.context(job, pool, steps) for job in jobs]

    def predicted(numbers: list[int], example: LabeledInput) -> list[torch.Tensor]:
        drawn = heads.predict([trained[n] for n in numbers], example) if numbers else []
        looks = [contexts[n] for n in numbers]
        voxels = np.asarray(example.inputs.voxels)
        return [p if look is None else look.refined(voxels, p) for look, p in zip(looks, drawn, strict=True)]

    judged = [n for n, job in enumerate(jobs) if job.fold < 0]
    counts: dict[tuple[Job, str], LogitCounts] = defaultdict(lambda: LogitCounts(heads.classes))
    for source in ("crossed", "validation"):
        for example in pool if source == "crossed" else examples["validation"]:
            left_out = [n for n, j in enumerate(jobs) if any(example is e for e in j.left_out(pool)[:MOST_CROSSED])]
            fitting = left_out if source == "crossed" else judged
            for n, probabilities in zip(fitting, predicted(fitting, example), strict=True):
                whole = replace(jobs[n], fold=-1)
                counts[whole, source].add(probabilities, example.truth(), example.known)
    print("temperatures fitted", flush=True)
    rows = []
    for example in examples["test"]:
        for n, probabilities in zip(judged, predicted(judged, example), strict=True):
            job = jobs[n]
            found = {source: value.temperatures() for (owner, source), value in counts.items() if owner == job}
            facts = {"method": job.method + tag, "count": job.count, "seed": job.seed, "steps": steps}
            rows += [{**facts, "temperatures": found, **row} for row in rows_of(probabilities, example, found)]
        print(f"{example.name} judged", flush=True)
    return rows


def trained_network(
    job: Job, pool: list[LabeledInput], model: FoundationModel, seconds: float, folder: Path
) -> tuple[Segmenter, int]:
    """A network trained for some processor time, and its steps; from its file where an earlier run has trained it."""
    kind, options = METHODS[job.method]
    method = make_method(kind, {**options, **NETWORKS[job.method]})
    torch.manual_seed(job.seed)
    cases = job.cases(pool)
    segmenter = method.build(len(cases[0].known), model.engine.denoiser)
    path = folder / f"{job.method}-{job.count}-{job.seed}-{seconds:g}.pt"
    if not path.exists():
        steps = train(method, segmenter, cases, Trial(job.method, job.count, seconds, job.seed))
        path.parent.mkdir(exist_ok=True)
        torch.save({"steps": steps, "part": segmenter.part.state_dict()}, path)
    kept = torch.load(path, weights_only=True)
    segmenter.part.load_state_dict(kept["part"])
    segmenter.eval()
    return segmenter, int(kept["steps"])


def run_network(
    job: Job, examples: dict[str, list[LabeledInput]], model: FoundationModel, seconds: float, folder: Path
) -> list[dict[str, Any]]:
    """Train a network, fit its temperature on the validation cases, and judge it."""
    segmenter, steps = trained_network(job, examples["training"], model, seconds, folder)
    budget, counts = InferenceBudget(torch.device("cpu"), samples=DRAWS), LogitCounts(len(examples["test"][0].known))
    for example in examples["validation"]:
        counts.add(segmenter.predict(example.inputs, budget).probabilities, example.truth(), example.known)
    found = {"validation": counts.temperatures()} if examples["validation"] else {}
    facts = {"method": job.method, "count": job.count, "seed": job.seed, "seconds": seconds, "steps": steps}
    rows = []
    for example in examples["test"]:
        probabilities = segmenter.predict(example.inputs, budget).probabilities
        rows += [{**facts, "temperatures": found, **row} for row in rows_of(probabilities, example, found)]
    print(f"{job}: {steps} steps, {time.process_time():.0f} s so far", flush=True)
    return rows


def tables(rows: list[dict[str, Any]], names: dict[int, str]) -> str:
    """Markdown: Dice by method and count with seeds and classes, and calibration."""
    counts = sorted({row["count"] for row in rows})
    methods = list(dict.fromkeys(row["method"] for row in rows))
    parts = []
    head = "| | " + " | ".join(f"{n} case{'s' if n > 1 else ''}" for n in counts) + " |\n|---|" + "---:|" * len(counts)
    cells = {(m, n): [r for r in rows if r["method"] == m and r["count"] == n] for m in methods for n in counts}
    parts.append(
        "Dice, mean over classes and test patients [95 % interval over patients] (range of the seeds' means)\n\n" + head
    )
    parts[-1] += "".join(f"\n| {m} | " + " | ".join(_dice_cell(cells[m, n]) for n in counts) + " |" for m in methods)
    halves = {key: [{**row, "dice": row["dice_half"]} for row in cell] for key, cell in cells.items()}
    parts.append("Dice of outlines from 0.5 on\n\n" + head)
    parts[-1] += "".join(f"\n| {m} | " + " | ".join(_dice_cell(halves[m, n]) for n in counts) + " |" for m in methods)
    parts.append(f"More than {BASELINE}, paired: same cases and seeds [95 % interval over patients]\n\n" + head)
    for m in methods:
        pairs = [(cells[m, n], cells.get((BASELINE, n), [])) for n in counts]
        parts[-1] += f"\n| {m} | " + " | ".join(_paired_cell(*pair) for pair in pairs) + " |"
    for number, name in names.items():
        parts.append(f"{name}\n\n" + head)
        for m in methods:
            texts = [[r["dice"] for r in cells[m, n] if r["class"] == number] for n in counts]
            parts[-1] += f"\n| {m} | " + " | ".join(f"{np.mean(t):.2f}" if t else "" for t in texts) + " |"
    for part, title in (("near", "within 12 mm of the structure"), ("tenth", "of probability 0.1 and more")):
        for version in ("none", "crossed", "validation"):
            parts.append(f"Calibration error, voxels {title}, temperature: {version}\n\n" + head)
            for m in methods:
                texts = [[r for r in cells[m, n] if version in r["bins"]] for n in counts]
                errors = [f"{calibration_error(t, version, part):.3f}" if t else "" for t in texts]
                parts[-1] += f"\n| {m} | " + " | ".join(errors) + " |"
    return "\n\n".join(parts) + "\n"


def _dice_cell(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    by_patient, by_seed = defaultdict(list), defaultdict(list)
    for row in rows:
        by_patient[row["case"]].append(row["dice"])
        by_seed[row["seed"]].append(row["dice"])
    mean, low, high = interval([float(np.mean(values)) for values in by_patient.values()])
    seeds = [float(np.mean(values)) for values in by_seed.values()]
    spread = f" ({min(seeds):.2f} to {max(seeds):.2f})" if len(seeds) > 1 else ""
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]{spread}"


def _paired_cell(rows: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> str:
    """Mean over patients of how much more Dice ``rows`` have than the baseline with the same seeds."""
    other = {(r["case"], r["class"], r["seed"]): r["dice"] for r in baseline}
    by_patient = defaultdict(list)
    for row in rows:
        key = (row["case"], row["class"], row["seed"])
        if row["method"] != BASELINE and key in other:
            by_patient[row["case"]].append(row["dice"] - other[key])
    if not by_patient:
        return ""
    mean, low, high = interval([float(np.mean(values)) for values in by_patient.values()])
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 5, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--heads", nargs="*", choices=HEADS, default=list(HEADS))
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=["dynunet", "fine-tuned"])
    parser.add_argument("--network-seeds", type=int, nargs="+", default=[0], help="seeds of the networks")
    parser.add_argument("--crossed", type=int, default=1, help="seeds for which a crossed temperature is fitted")
    parser.add_argument("--steps", type=int, default=250, help="of a head")
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time of a network")
    parser.add_argument("--spacing", type=float, default=4.0, help="working voxels, mm")
    parser.add_argument("--prior", default="starter-ct")
    parser.add_argument("--option", nargs="*", default=[], help="of the features, KEY=JSON")
    parser.add_argument("--tag", default="", help="added to the methods' names")
    args = parser.parse_args()
    options = {key: json.loads(value) for key, _, value in (text.partition("=") for text in args.option)}
    model = load_model(args.prior, device="cpu")
    examples = examples_of(args.datalist, args.output, args.spacing)
    scores = args.output / "scores.jsonl"
    rows = [json.loads(line) for line in scores.read_text().splitlines()] if scores.exists() else []
    done = {(row["method"], row["count"], row["seed"]) for row in rows}
    classes = len(examples["training"][0].known)

    def keep(new: list[dict[str, Any]]) -> None:
        with open(scores, "a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in new)
        rows.extend(new)

    for source in ("prior", "random"):
        names = [name for name in args.heads if HEADS[name][0] == source]
        jobs = [Job(name, n, seed) for name in names for n in args.counts for seed in range(args.seeds)]
        missing = [job for job in jobs if (job.method + args.tag, job.count, job.seed) not in done]
        crossed = [j for j in missing if j.method == "non-linear" and j.count > 1 and j.seed < args.crossed]
        folds = [replace(job, fold=f) for job in crossed for f in range(folds_of(job.count))]
        if missing:
            prior, key = model.engine.denoiser, model.sha256
            if source == "random":
                prior, key = random_prior(model), "random-0"
            heads = Heads(prior, key, classes, args.output / "heads", options)
            keep(run_heads(heads, examples, [*missing, *folds], args.steps, args.tag))
    for method in args.networks:
        for n, seed in product(args.counts, args.network_seeds):
            if (method, n, seed) not in done:
                keep(run_network(Job(method, n, seed), examples, model, args.seconds, args.output / "networks"))
    values = sorted(json.loads(args.datalist.read_text()).get("labels", {}).items(), key=lambda item: int(item[0]))
    text = tables(rows, {number + 1: str(value) for number, (_, value) in enumerate(values)})
    (args.output / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
