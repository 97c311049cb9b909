"""Does a segmenter that learns from few lesions learn more with generated ones added?

    python Testing/experiments/generated_lesions_help.py LESIONS.json -o FOLDER [--real 3] [--generated 12] [--seeds 3]
        [--place anywhere|muscle|own] [--like pool|few [--painted]]

LESIONS.json is a decathlon datalist: "training" is the pool from which each seed draws its few real cases, "free" are
scans without such lesions into which ``generate_lesion`` puts some, "validation" is where choices are made, "test" is
what is reported (with --split test). Where the lesions are put (--place):

- ``anywhere``: in soft tissue of the free scans, near the skin;
- ``muscle``: the same, but where it is as dense as muscle (the liver is, too), not in fat;
- ``own``: in the scans of the real cases that the seed has, over the real lesion and up to GROWTH of its diameter
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
import zlib
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
from MedDiffFMLib.tasks.generate_lesion.lesion_extent import distance_around
from MedDiffFMLib.tasks.generate_lesion.lesion_shape import make_lesion_mask
from MedDiffFMLib.tasks.generate_lesion.outline import ball_diameter
from MedDiffFMLib.training.finetune.cases import open_control_cases, prepare_cases
from MedDiffFMLib.training.finetune.segmentation_case import make_example

SPLITS = ("training", "free", "validation", "test")
ANYWHERE, MUSCLE, OWN = "anywhere", "muscle", "own"
PLACES = {ANYWHERE: (-160.0, 120.0), MUSCLE: (10.0, 90.0), OWN: (-160.0, 120.0)}
"""Where lesions are put, and how dense it is there after smoothing, HU."""
NEAR_SKIN_MM = 70.0
POOL, FEW = LIKE = ("pool", "few")
MUSCLE_MM = (2.0, 12.0)
"""From a lesion's rim: where the muscle around it is measured."""
LEAST_MUSCLE = 200
"""Voxels; fewer tell nothing of it."""
GROWTH = 0.15
"""Of a real lesion's diameter: by so much one that is generated over it reaches farther out, at most."""
GRAIN_VOXELS = 0.7
"""Deviation of the smoothing of painted noise."""
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
OTHERS = "+ other real"
ARMS = (REAL, OTHERS, ADDED, HALF, THEN, ALONE)
MADE = (ADDED, HALF, THEN, ALONE)
FOUND = 0.5


def room_of(volume: Volume, hounsfield: tuple[float, float], near_skin: float) -> np.ndarray:
    """Tissue of some density at most so many mm under the skin, bool (k, j, i)."""
    from scipy.ndimage import binary_closing, binary_opening, distance_transform_edt, gaussian_filter

    edges = np.array(volume.spacing[::-1])
    body = body_mask(volume.voxels)
    smooth = gaussian_filter(volume.voxels.astype(np.float32), 2.0 / edges)
    soft = body & (smooth > hounsfield[0]) & (smooth < hounsfield[1])
    soft = binary_opening(binary_closing(soft, iterations=1), iterations=2)
    depth = distance_transform_edt(np.pad(body, ((0, 0), (1, 1), (1, 1))), sampling=edges)[:, 1:-1, 1:-1]
    return soft & (depth < near_skin)


def regrown(lesion: np.ndarray, room: np.ndarray, edges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A lesion with all of another one in it that reaches farther out here and there, bool (k, j, i).

    Args:
        room: where it may grow.
        edges: of a voxel (k, j, i), mm.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter
    from scipy.stats import norm

    diameter = np.cbrt(6 / np.pi * lesion.sum() * edges.prod())
    field = gaussian_filter(rng.standard_normal(lesion.shape), diameter / 5 / edges)
    reach = GROWTH * diameter * norm.cdf(field / field.std())
    return lesion | (room & (distance_transform_edt(~lesion, sampling=edges) <= reach))


def muscle_around(volume: Volume, lesion: np.ndarray) -> tuple[float, float] | None:
    """Median and spread of the HU of the muscle around a lesion, None where there is none."""
    from scipy.ndimage import gaussian_filter

    edges = np.array(volume.spacing[::-1])
    distance, box = distance_around(lesion, volume.spacing, MUSCLE_MM[1])
    smooth = gaussian_filter(volume.voxels[box].astype(np.float32), 2.0 / edges)
    dense = (smooth > PLACES[MUSCLE][0]) & (smooth < PLACES[MUSCLE][1])
    values = volume.voxels[box][dense & (distance > MUSCLE_MM[0]) & (distance <= MUSCLE_MM[1])]
    return None if values.size < LEAST_MUSCLE else (float(np.median(values)), spread_of(values))


def spread_of(values: np.ndarray) -> float:
    """Half of what the middle 68 % of some HU span: the standard deviation, were it not for a few others."""
    return float(np.ptp(np.percentile(values, (16, 84)))) / 2


@dataclass(frozen=True)
class Look:
    """How a real lesion looks.

    Attributes:
        diameter: of the ball of its volume, mm.
        contrast: of its core's mean over the muscle around it, HU.
        roughness: spread of its core over that of the muscle around it.
    """

    diameter: float
    contrast: float
    roughness: float


def look_of(entry: Entry) -> Look | None:
    """Look of a real lesion, None where no muscle is around it."""
    from scipy.ndimage import binary_erosion

    volume, lesion = _read(entry)
    around = muscle_around(volume, lesion)
    if around is None:
        return None
    core = volume.voxels[binary_erosion(lesion)]
    return Look(ball_diameter(lesion, volume.spacing), float(core.mean()) - around[0], spread_of(core) / around[1])


def density_like(volume: Volume, lesion: np.ndarray, look: Look) -> dict[str, Any]:
    """Parameters of the task by which a lesion is as dense and as rough beside its muscle as a real one was.

    Raises:
        InputError: there is no muscle around it.
    """
    around = muscle_around(volume, lesion)
    if around is None:
        raise InputError("There is no muscle around the lesion.", "Choose another place.")
    spread = max(look.roughness * around[1], 1.0)
    return {"mean": round(around[0] + look.contrast, 1), "spread": round(spread, 1), "tries": 1}


def painted(volume: Volume, lesion: np.ndarray, wishes: dict[str, Any], rng: np.random.Generator) -> Volume:
    """CT with noise of the wished mean and spread in the lesion, as grainy as a CT's is."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal(lesion.shape), GRAIN_VOXELS)[lesion]
    voxels = volume.voxels.copy()
    voxels[lesion] = np.round(wishes["mean"] + wishes["spread"] * (noise - noise.mean()) / noise.std())
    return replace(volume, voxels=voxels)


def _read(entry: Entry) -> tuple[Volume, np.ndarray]:
    return mdf.read_volume(entry.image), mdf.read_volume(entry.files["label"]).voxels > 0


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
    """Makes cases with a generated lesion, as files and a line of facts each.

    Attributes:
        diameters: least and largest, mm; drawn evenly in their logarithm.
        place: one of PLACES.
        looks: of the real lesions that they take after in turn; empty for the task's own density and texture.
        like: whose the looks are, one of LIKE; empty without looks.
        seed: of the few real cases, None where the lesions are the same for all seeds.
        painted: fill them with noise instead of what the networks draw; needs looks.
    """

    folder: Path
    model: Any
    diameters: tuple[float, float]
    place: str = ANYWHERE
    looks: tuple[Look, ...] = ()
    like: str = ""
    seed: int | None = None
    painted: bool = False

    @property
    def kind(self) -> str:
        """What is told of its cases."""
        place = {ANYWHERE: "free"}.get(self.place, self.place)
        return place + {POOL: "-like", FEW: "-few"}.get(self.like, "") + ("-painted" if self.painted else "")

    def cases(self, sources: Sequence[Entry], count: int) -> list[Entry]:
        """So many good lesions in the sources, in turn; those of an earlier run are used again."""
        made: list[Entry] = []
        for number in range(MOST_ATTEMPTS * count):
            if len(made) == count:
                break
            source = sources[number % len(sources)]
            turn = number // len(sources)
            begin = self.kind if self.seed is None else f"{self.kind}{len(self.looks)}-seed{self.seed}"
            name = f"{begin}-{source.name}-{turn}" if self.place == OWN else f"{begin}-{number:02d}"
            facts = self._fact(name, source, turn if self.place == OWN else number)
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
        # The lesions of own scans are drawn anew in each, and take after other real ones in each.
        origin = (zlib.crc32(source.name.encode()),) if self.place == OWN else ()
        rng = np.random.default_rng([7, number, *origin])
        look = self.looks[(number + sum(origin)) % len(self.looks)] if self.looks else None
        low, high = np.log(self.diameters)
        diameter = round(float(np.exp(rng.uniform(low, high))) if look is None else look.diameter, 1)
        volume = mdf.read_volume(source.image)
        try:
            mask, wishes = self._wishes(volume, source, look, diameter, rng)
            if self.painted:
                return self._write(name, painted(volume, mask, wishes, rng), mask) | {"good": True, "wishes": wishes}
            marked = Volume(mask.astype(np.uint8), volume.ijk_to_ras, "mask")
            result = mdf.generate_lesion(volume, self.model, mask=marked, seed=number, **wishes)
        except InputError as error:  # no room for one of this size, or no muscle around it
            return {"good": False, "diameter": diameter, "reason": str(error)}
        made = self._write(name, result.volumes["with_lesion"], result.volumes["lesion"].voxels > 0)
        facts = result.facts
        return made | {
            "good": look is not None or bool(facts["check"]["good"]), "diameter": diameter,
            "mean_hu": facts["mean_hu_after"], "spread_hu": facts["spread_hu_after"],
            "around_hu": facts["surroundings_hu"], "check": facts["check"],
        }  # fmt: skip

    def _write(self, name: str, volume: Volume, lesion: np.ndarray) -> dict[str, Any]:
        """The case's files; how large its lesion is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for part, suffix in zip(cropped(volume, lesion), ("", "_mask"), strict=True):
            write_volume(part, self.folder / f"{name}{suffix}.nrrd", overwrite=True)
        return {"made_mm": round(ball_diameter(lesion, volume.spacing), 1)}

    def _wishes(
        self, volume: Volume, source: Entry, look: Look | None, diameter: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Mask and parameters for the task: of the lesion, or of where it may be and how large it shall be."""
        room = room_of(volume, PLACES[self.place], np.inf if self.place == OWN else NEAR_SKIN_MM)
        if self.place == OWN:
            lesion = regrown(_read(source)[1], room, np.array(volume.spacing[::-1]), rng)
        elif look is None:
            return room, {"diameter": diameter}
        else:
            lesion = make_lesion_mask(room, volume.spacing, diameter, rng)
        return lesion, {} if look is None else density_like(volume, lesion, look)


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
