"""How a flow of translation is told about its source, and what the visual invariant adds, at equal computing.

``python -m Testing.experiments.translate_ablation PAIRS.json RUN [--steps 300] [--only NAME...]``: small flows of CT
from MR are trained on the same windows of the list's training pairs from the same weights of the trunk, for as many
operations as today's guidance takes in ``--steps``; its validation pairs, which must be no TEST patients, judge. The
first guess is one number in the body: around the table of intensities, no flow of such a training was better than the
table. Errors are told beside those of today's guidance, with 95 % intervals of the mean difference over patients
(bootstrap).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from MedDiffFMLib.imaging.intensity import HU_LIMIT, to_network
from MedDiffFMLib.multimodal.aligned import AlignedEncoders, find_encoders
from MedDiffFMLib.multimodal.encoders import PARTS, SIZE, ImageEncoder
from MedDiffFMLib.multimodal.flow import BACKGROUND, Flow, FlowConfig
from MedDiffFMLib.multimodal.guidance import BANDS, Source, VoxelGuidance, share_of_noise
from MedDiffFMLib.multimodal.names import CT, MR_T1
from MedDiffFMLib.multimodal.translation import translate_image
from MedDiffFMLib.training.averages import ExponentialAverage
from MedDiffFMLib.training.multimodal.align import read_pairs
from MedDiffFMLib.training.pretrain.translation import FlowTraining, TranslationConfig, _loss
from MedDiffFMLib.training.pretrain.translation_twins import TwinLoss, box_of, shown_parts
from MedDiffFMLib.training.pretrain.translation_validation import BONE_HU, dice
from MedDiffFMLib.training.pretrain.translation_windows import RealPair, TranslationWindows, Window

SIZES = FlowConfig((MR_T1,), channels=(16, 24, 32), groups=8)
CONFIG = TranslationConfig(
    window=(24, 32, 32), batch=2, mr_every=10**9, float32=True, ct=SIZES, mr=replace(SIZES, sources=(CT,))
)
RATE, EMA, DRAWS = 3e-3, 0.98, 10_000
WINDOWS = 200
"""Drawn once and shown again and again, to all variants alike."""
MOST = (40, 88, 88)
"""Voxels around the middle of a patient who judges."""
TODAY = "voxel by voxel, at each level (today's)"


class NoGuidance(nn.Module):
    """The trunk alone, which sees the guess."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = widths

    def forward(self, source: Source, sigma: torch.Tensor) -> list[torch.Tensor]:
        return [torch.zeros(1, width, 1, 1, 1) for width in self.widths]


class Concatenation(NoGuidance):
    """The source's bands among the channels that the trunk's first convolution reads, which is linear: what it makes of
    them is added to what it makes of the others."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths)
        self.stem = nn.Conv3d(BANDS + 1, widths[0], 3, padding=1)

    def forward(self, source: Source, sigma: torch.Tensor) -> list[torch.Tensor]:
        present = 1 - share_of_noise(source.sigma)[:, None, None, None, None]
        bands = VoxelGuidance._bands(self, source)  # type: ignore[arg-type]
        return [self.stem(bands) * present, *super().forward(source, sigma)[1:]]


class PooledVector(VoxelGuidance):
    """Today's encoder, of each of whose levels only the mean over the window is handed on: one vector."""

    def forward(self, source: Source, sigma: torch.Tensor) -> list[torch.Tensor]:
        return [addition.mean((2, 3, 4), keepdim=True) for addition in super().forward(source, sigma)]


class PartVectors(NoGuidance):
    """Vectors of the parts and of the whole of the source's window by an encoder that is not trained here, between
    whose places they are interpolated."""

    def __init__(self, places: Sequence[tuple[int, int]], encoder: ImageEncoder) -> None:
        super().__init__([width for _, width in places])
        self.level_of = [level for level, _ in places]
        self.encoder = [encoder.eval().requires_grad_(False)]  # in a list: neither trained nor averaged
        self.additions = nn.ModuleList(nn.Conv3d(2 * SIZE, width, 1) for width in self.widths)
        for addition in self.additions:
            nn.init.zeros_(addition.weight)  # type: ignore[arg-type]
            nn.init.zeros_(addition.bias)  # type: ignore[arg-type]

    def forward(self, source: Source, sigma: torch.Tensor) -> list[torch.Tensor]:
        image = source.image
        with torch.no_grad():
            found = self.encoder[0](box_of(torch.where(source.known > 0.5, image, BACKGROUND)), "mr")
        count = [int(n) + 1 for n in np.unravel_index(int(shown_parts(image)[-1]), (PARTS,) * 3)]
        cube = found.parts.reshape(-1, PARTS, PARTS, PARTS, SIZE)[:, : count[0], : count[1], : count[2]]
        whole = found.whole[:, None, None, None].expand(*cube.shape[:4], SIZE)
        told = torch.cat([cube, whole], -1).movedim(-1, 1) * SIZE**0.5
        present = 1 - share_of_noise(source.sigma)[:, None, None, None, None]
        sizes = [[n // 2 ** (level + 1) for n in image.shape[2:]] for level in self.level_of]
        return [
            functional.interpolate(addition(told), size, mode="trilinear") * present
            for addition, size in zip(self.additions, sizes, strict=True)
        ]


def variants(aligned: AlignedEncoders) -> dict[str, tuple[Callable[[], nn.Module], float]]:
    """Name -> what makes the guidance, and the weight of the invariant."""
    usual: Any = Flow(SIZES).guidance[MR_T1]
    channels, widths = SIZES.channels, list(usual.widths)
    places = list(zip(usual.level_of, widths, strict=True))

    def today() -> nn.Module:
        return VoxelGuidance(channels, places, SIZES.groups)

    def unaligned() -> nn.Module:
        torch.manual_seed(1)
        return PartVectors(places, AlignedEncoders().volumes)

    return {
        TODAY: (today, 0),
        "none": (lambda: NoGuidance(widths), 0),
        "concatenated at the input": (lambda: Concatenation(widths), 0),
        "one pooled vector": (lambda: PooledVector(channels, places, SIZES.groups), 0),
        "vectors of parts, encoders that were aligned": (lambda: PartVectors(places, aligned.volumes), 0),
        "vectors of parts, encoders that were not": (unaligned, 0),
        "today's, invariant of weight 0.1": (today, 0.1),
    }


def flow_with(guidance: Callable[[], nn.Module], rows: Sequence[RealPair], seed: int) -> FlowTraining:
    """Flows of which that of CT is guided so; the trunk's weights are the same for all."""
    torch.manual_seed(10 * seed)
    module = FlowTraining({CT: CONFIG.ct, MR_T1: CONFIG.mr})
    module.fit_lookups(rows)
    torch.manual_seed(10 * seed + 2)
    module.flows[CT].guidance[MR_T1] = guidance()  # type: ignore[union-attr,operator,index]
    return module


def even(row: RealPair, module: FlowTraining) -> RealPair:
    """A pair whose first guess is one number in the body, the usual HU: all else has to come by guidance."""
    table: Any = module.flows[CT].lookup[MR_T1]  # type: ignore[union-attr,index]
    usual = float((table.values * table.share).sum())
    return replace(row, guess=np.where(row.mr_body, usual, BACKGROUND).astype(np.float32))


def by_table(row: RealPair, module: FlowTraining) -> float:
    """Mean absolute error of the table of intensities, HU."""
    table: Any = module.flows[CT].lookup[MR_T1]  # type: ignore[union-attr,index]
    image = torch.from_numpy(np.ascontiguousarray(row.image, np.float32))[None, None]
    with torch.no_grad():
        guess = table(image, torch.zeros(1))[0, 0].numpy()
    used = row.pair.seen & row.pair.body & row.mr_body
    return float(HU_LIMIT * np.abs(guess - to_network(row.pair.hounsfield))[used].mean())


class Pool:
    """Windows that were drawn once. Pairs are taken to lie on each other: the search for a shift, which training makes,
    took most of the time of so small a network."""

    def __init__(self, rows: Sequence[RealPair], seed: int) -> None:
        windows = TranslationWindows(rows, [], CONFIG.window, seed, None)  # type: ignore[arg-type]
        self.windows = [replace(windows.draw(number, 1.0), real=False) for number in range(WINDOWS)]

    def draw(self, number: int, real_share: float) -> Window:
        """Window ``number`` of the run, as :meth:`TranslationWindows.draw`."""
        return self.windows[number % len(self.windows)]


def middle(row: RealPair) -> RealPair:
    """The middle of a pair, which is judged."""
    part = tuple(
        slice(max(0, (n - most) // 2), max(0, (n - most) // 2) + most)
        for n, most in zip(row.mr_body.shape, MOST, strict=True)
    )
    pair = row.pair
    cut = {name: getattr(pair, name)[part] for name in ("hounsfield", "mr", "seen", "body")}
    return RealPair(replace(pair, **cut), row.mr_body[part])


def operations(module: FlowTraining) -> int:
    """Of one forward pass of the flow of CT on a window."""
    shape = (1, 1, *CONFIG.window)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        source = Source(torch.zeros(shape), torch.zeros(1))
        module.flows[CT](torch.zeros(shape), torch.full((1,), torch.inf), {MR_T1: source})
    return counter.get_total_flops()


def trained(module: FlowTraining, windows: Pool, steps: int, twins: TwinLoss, weight: float, seed: int) -> nn.Module:
    """Averaged flows."""
    module.to(memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
    config = replace(CONFIG, invariant_weight=weight, seed=seed)
    average = ExponentialAverage(module, EMA)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], RATE, weight_decay=1e-2)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 20, 2 * (steps - step) / steps)
        optimizer.zero_grad()
        _loss(module, step, windows, config, slice(None), twins if weight else None).backward()  # type: ignore[arg-type]
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        average.update(module, step)
    return average.module


def errors(flow: Any, row: RealPair) -> tuple[float, float, float]:
    """Of a patient: mean absolute error in HU of the flow and of its guess, and Dice of bone."""
    pair = row.pair
    arrays = (row.image, pair.seen, row.mr_body, row.guess)
    image, seen, body, guess = (torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in arrays)
    used = pair.seen & pair.body & row.mr_body
    found = translate_image(flow, image, seen, body, guess, precision="float32")
    truth = HU_LIMIT * to_network(pair.hounsfield)[used]
    made, first = (HU_LIMIT * part.numpy()[used] for part in (found.image, found.guess))
    return (
        float(np.abs(made - truth).mean()),
        float(np.abs(first - truth).mean()),
        dice(made > BONE_HU, truth > BONE_HU),
    )


def interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % of the mean over patients, by bootstrap."""
    drawn = np.random.default_rng(0).integers(len(differences), size=(DRAWS, len(differences)))
    low, high = np.quantile(differences[drawn].mean(1), (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of weights, windows and noise levels")
    parser.add_argument("--only", nargs="*", help="beginnings of names")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known, others = ([RealPair.of(pair) for pair in part] for part in read_pairs(options.pairs, options.run / "pairs"))
    aligned = find_encoders()
    twins = TwinLoss(aligned)
    others, windows = [middle(row) for row in others], None
    found: dict[str, list[tuple[float, float, float]]] = {}
    first = flow_with(variants(aligned)[TODAY][0], known, options.seed)
    print(f"table of intensities: error {np.mean([by_table(row, first) for row in others]):.1f}", flush=True)
    dearest = operations(first)
    for name, (guidance, weight) in variants(aligned).items():
        if options.only and not name.startswith(tuple(options.only)):
            continue
        module = flow_with(guidance, known, options.seed)
        windows = windows or Pool([even(row, module) for row in known], options.seed)
        steps = round(options.steps * dearest / operations(module))
        begun = time.process_time()
        average: Any = trained(module, windows, steps, twins, weight, options.seed)
        seconds = time.process_time() - begun
        flow = average.flows[CT].eval()
        found[name] = [errors(flow, even(row, module)) for row in others]
        rows = np.array(found[name])
        line = (
            f"{name:46} {steps:4} steps {seconds:5.0f} s, error {rows[:, 0].mean():.1f} (guess {rows[:, 1].mean():.1f})"
        )
        line += f", bone {rows[:, 2].mean():.2f}"
        if TODAY in found and name != TODAY:
            differences = rows[:, 0] - np.array(found[TODAY])[:, 0]
            low, high = interval(differences)
            line += f", more than today's {differences.mean():+.1f} ({low:+.1f} to {high:+.1f}), n {len(rows)}"
        print(line, flush=True)
        (options.run / f"errors-{options.seed}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
