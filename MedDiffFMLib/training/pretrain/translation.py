"""Training of the flows of translation: first mostly on MRs simulated from CTs, then mostly on real pairs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from ...core.errors import InputError
from ...core.precision import autocast
from ...datasets.datalist import read_datalist, refuse_shared_patients
from ...datasets.prepared_cases import Case, open_cases
from ...imaging.haar import haar_forward
from ...imaging.intensity import HU_LIMIT, to_network
from ...multimodal.familiarity import learn_familiarity
from ...multimodal.flow import Flow, FlowConfig
from ...multimodal.flow_file import Flows
from ...multimodal.guidance import BANDS, Source
from ...multimodal.names import CT, MR_T1
from ...multimodal.pairs import SPACING_MM, prepare_pairs
from ...multimodal.translation import translate_image
from ..loop import LoopConfig, Observer, TrainingLoop
from .run import check_same_run, launch
from .shift_tolerant import REACH, best_shift, shifted
from .translation_windows import FAT, RealPair, TranslationWindows, Window

BONE_HU = 150
NINETY = 1.645
"""Standard deviations to both sides that hold 90 % of a normal distribution."""
LOWEST, HIGHEST = 0.02, 2.0
"""Noise levels of a modality that is neither given nor absent, network range."""


@dataclass(frozen=True)
class TranslationConfig:
    """Everything that decides what is trained.

    Attributes:
        window: (D, H, W) voxels of 2 mm.
        batch: windows a step.
        simulated_first: share of the steps in which ``early`` of the windows are real, then ``late``.
        mr_every: every so many steps the flow of MR is trained, in the others that of CT.
        absent, given: shares of windows whose target has no information yet, and whose source has no noise.
        spread_weight: of the log-variances' likelihood in the loss.
        bone_weight: of voxels of bone in the loss of CT: they are few, and the guess has none.
    """

    window: tuple[int, int, int] = (24, 40, 40)
    batch: int = 3
    seed: int = 0
    simulated_first: float = 0.45
    early: float = 0.3
    late: float = 0.75
    mr_every: int = 4
    absent: float = 0.85
    given: float = 0.9
    spread_weight: float = 0.1
    bone_weight: float = 2.0
    ct: FlowConfig = field(default_factory=lambda: FlowConfig((MR_T1,)))
    mr: FlowConfig = field(default_factory=lambda: FlowConfig((CT,), channels=(16, 32, 48)))
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1600,
            learning_rate=1.5e-3,
            decay_share=0.5,
            ema=0.995,
            validate_every=400,
            checkpoint_every=25,
            warmup=60,
        )
    )

    def real_share(self, step: int) -> float:
        """Share of real windows at a step."""
        return self.early if step < self.simulated_first * self.loop.steps else self.late


class FlowTraining(nn.Module):
    """The flows of both directions, by target."""

    def __init__(self, configs: dict[str, FlowConfig]) -> None:
        super().__init__()
        self.flows = nn.ModuleDict({name: Flow(config) for name, config in configs.items()})

    def fit_lookups(self, pairs: Sequence[RealPair]) -> None:
        """Fill the tables of first guesses from pairs."""
        rows = [(row.pair, row.pair.seen & row.pair.body & row.mr_body) for row in pairs]
        hounsfield = np.concatenate([to_network(pair.hounsfield[used]) for pair, used in rows])
        signal = np.concatenate([FAT.to_network(pair.mr[used]) for pair, used in rows])
        for target, source, values in ((CT, signal, hounsfield), (MR_T1, hounsfield, signal)):
            (table,) = self.flows[target].lookup.values()  # type: ignore[union-attr,operator]
            table.fit(source, values)

    def forward(self, target: str, windows: Sequence[Window], sigmas: torch.Tensor, noise: torch.Tensor,
                config: TranslationConfig) -> torch.Tensor:  # fmt: skip
        """Mean loss of windows.

        Args:
            sigmas: (2, B) noise levels of target and source.
            noise: (2, B, 1, D, H, W) unit noise of both.
        """
        flow: Any = self.flows[target]
        truth, image, body = (torch.stack(part) for part in zip(*(_roles(w, target) for w in windows), strict=True))
        seen, weight = (torch.stack([getattr(w, name) for w in windows]) for name in ("seen", "weight"))
        sigma, source_sigma = sigmas
        level, source_level = (torch.nan_to_num(s, posinf=0.0)[:, None, None, None, None] for s in sigmas)
        if target == CT:
            weight = weight * (1 + (config.bone_weight - 1) * (truth > BONE_HU / HU_LIMIT))
        noisy = (source_sigma > 0)[:, None, None, None, None]
        source = Source(image + source_level * noise[1], source_sigma, seen, torch.where(noisy, 1.0, body))
        with autocast(image.device):
            estimate = flow(truth + level * noise[0], sigma, {flow.config.sources[0]: source})
        scale = (1 + (flow.config.deviation / sigma).square()).sqrt()  # a flow that knows more is to err less
        losses = []
        for n, window in enumerate(windows):
            shift = best_shift(estimate.image[n].detach(), truth[n], weight[n]) if window.real else (0, 0, 0)
            share = shifted(weight[n], shift)
            error = shifted(estimate.image[n], (0, 0, 0)) - shifted(truth[n], shift)
            mean = (error.abs() * share).sum() / share.sum().clamp_min(1) / flow.config.deviation * scale[n]
            edge = REACH // 2
            spread = estimate.log_variance[n, :, edge:-edge, edge:-edge, edge:-edge]
            losses.append(mean + config.spread_weight * _spread_loss(error.detach(), spread, share))
        return torch.stack(losses).mean()


def _roles(window: Window, target: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Target, source and the source's body."""
    if target == CT:
        return window.ct, window.mr, window.mr_body
    return window.mr, window.ct, window.ct_body


def _spread_loss(error: torch.Tensor, log_variance: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the Haar bands of an error (1, D, H, W) under a normal distribution."""
    bands = haar_forward(error[None])[0]
    share = functional.avg_pool3d(weight[None], 2)[0]
    loss = 0.5 * (bands.square() * (-log_variance).exp() + log_variance)
    return (loss * share).sum() / (BANDS * share.sum()).clamp_min(1)


def pretrain_translation(
    datalist: Path,
    cache: Path | None,
    folder: Path,
    config: TranslationConfig,
    *,
    accelerator: str = "auto",
    report: Callable[[str], None] = lambda line: None,
) -> Flows:
    """Train, or continue what ``folder`` holds; the averaged flows, with what the patients held out say of them.

    Args:
        datalist: MONAI decathlon JSON whose rows have ``image`` (CT) and ``mr``.
        cache: folder of `meddifffm prepare`, of whose CTs MRs are simulated; None for real pairs alone.

    Raises:
        InputError: no pairs, or ``folder`` holds a run with other settings.
    """
    record = json.loads(json.dumps(asdict(config)))
    check_same_run(folder, record)
    fabric = launch(accelerator, 1, 1)
    entries = read_datalist(datalist)
    refuse_shared_patients(entries)
    pairs = {split: prepare_pairs([e for e in entries if e.split == split], folder / "pairs", report)
             for split in ("training", "validation")}  # fmt: skip
    if not pairs["training"]:
        raise InputError(f"{datalist.name} names no training pairs.", 'Give rows with "image" (CT) and "mr".')
    held_out = {pair.patient for pair in pairs["validation"]}
    rows = [RealPair.of(pair) for pair in pairs["training"]]
    windows = TranslationWindows(rows, _simulable(cache, held_out), config.window, config.seed)
    torch.manual_seed(config.seed)
    module = FlowTraining({CT: config.ct, MR_T1: config.mr})
    module.fit_lookups(rows)
    module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    held = [RealPair.of(pair) for pair in pairs["validation"]]
    last: dict[str, float] = {}

    def validate(flows: nn.Module) -> dict[str, float]:
        last.update(validation_figures(flows.flows, held))  # type: ignore[arg-type]
        return dict(last)

    loop = TrainingLoop(
        module, lambda net, step: _loss(net, step, windows, config), validate if held else None, config.loop, folder,
        fabric, _Report(report, config.loop.log_every),
    )  # fmt: skip
    loop.resume()
    (folder / "config.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    trained: Any = loop.run()
    flows = {name: flow.eval().requires_grad_(False) for name, flow in trained.flows.items()}
    facts = {
        "steps": loop.step,
        "pairs": len(rows),
        "simulated_from": len(windows.cases),
        "validation": last or validation_figures(flows, held) if held else {},
    }
    images, others = ([(FAT.to_network(np.where(r.pair.seen, r.pair.mr, 0)), r.mr_body & r.pair.seen) for r in part]
                      for part in (rows, held))  # fmt: skip
    familiarity = learn_familiarity(images, others, SPACING_MM, config.seed)
    return Flows(flows, calibrated_spread(flows, held), familiarity, facts=facts)


class _Report(Observer):
    """A line now and then."""

    def __init__(self, report: Callable[[str], None], every: int) -> None:
        self.report, self.every, self.smooth = report, every, math.nan

    def stepped(self, row: dict[str, float]) -> None:
        self.smooth = row["loss"] if math.isnan(self.smooth) else 0.98 * self.smooth + 0.02 * row["loss"]
        if row["step"] % self.every == 0:
            self.report(f"step {row['step']}  loss {self.smooth:.3f}  {row['seconds']:.2f} s")


def _simulable(cache: Path | None, held_out: set[str]) -> list[Case]:
    """Prepared training CTs with tissue classes of patients that do not judge."""
    if cache is None:
        return []
    cases = open_cases(cache, "training")
    return [case for case in cases if case.patient not in held_out and case.levels[0].tissue is not None]


def _loss(module: nn.Module, step: int, windows: TranslationWindows, config: TranslationConfig) -> torch.Tensor:
    """Loss of a step, a pure function of its number and the weights."""
    target = MR_T1 if step % config.mr_every == config.mr_every - 1 else CT
    share = config.real_share(step) if target == CT else config.late  # simulated contrasts teach no real one
    numbers = range(step * config.batch, (step + 1) * config.batch)
    drawn = [windows.draw(number, share) for number in numbers]
    rng = np.random.default_rng([config.seed, step, 1])
    sigmas = np.exp(rng.uniform(math.log(LOWEST), math.log(HIGHEST), (2, config.batch)))
    sigmas[0, rng.random(config.batch) < config.absent] = np.inf
    kind = rng.random(config.batch)
    sigmas[1] = np.where(kind < config.given, 0.0, np.where(kind > 0.5 + config.given / 2, np.inf, sigmas[1]))
    noise = torch.randn((2, config.batch, 1, *config.window), generator=torch.Generator().manual_seed(step))
    return module(target, drawn, torch.from_numpy(sigmas.astype(np.float32)), noise, config)


@dataclass(frozen=True)
class Judged:
    """Both directions of one pair, values in the body where both scanners saw something, (n,) each.

    Attributes:
        ct, mr: the truth, HU and units of fat.
        made: target -> translated.
        guess: target -> by intensities alone.
        spread: target -> standard deviation as the flow says.
    """

    ct: np.ndarray
    mr: np.ndarray
    made: dict[str, np.ndarray]
    guess: dict[str, np.ndarray]
    spread: dict[str, np.ndarray]


UNIT = {CT: HU_LIMIT, MR_T1: float(FAT.to_values(np.zeros(1))[0])}
"""Target -> its unit (HU, fat) for one of the network's range."""


def judge(flows: Mapping[str, Flow], row: RealPair) -> Judged:
    """Translate a pair both ways."""
    pair = row.pair
    images = to_network(pair.hounsfield), FAT.to_network(np.where(pair.seen, pair.mr, 0))
    ct, mr, seen, ct_body, body = (
        torch.from_numpy(np.ascontiguousarray(array, np.float32))
        for array in (*images, pair.seen, pair.body, row.mr_body)
    )
    used = (seen * ct_body) > 0
    given = {CT: (mr, seen, body), MR_T1: (ct, seen, ct_body)}
    made, guess, spread = {}, {}, {}
    for target, (image, *masks) in given.items():
        found = translate_image(flows[target], image, *masks)
        offset = 0.0 if target == CT else 1.0
        made[target] = (UNIT[target] * (found.image[used] + offset)).numpy()
        guess[target] = (UNIT[target] * (found.guess[used] + offset)).numpy()
        spread[target] = (UNIT[target] * found.variance[used].sqrt()).numpy()
    return Judged((HU_LIMIT * ct[used]).numpy(), FAT.to_values(mr[used].numpy()), made, guess, spread)


def validation_figures(flows: Mapping[str, Flow], pairs: Sequence[RealPair]) -> dict[str, float]:
    """Mean figures over pairs that were held out: errors of both directions, of the lookups, Dice of bone."""
    rows = []
    for pair in pairs:
        found = judge(flows, pair)
        error = np.abs(found.made[CT] - found.ct)
        rows.append({
            "ct_mae": error.mean(),
            "ct_lookup": np.abs(found.guess[CT] - found.ct).mean(),
            "bone_dice": dice(found.made[CT] > BONE_HU, found.ct > BONE_HU),
            "covered": np.mean(error < NINETY * found.spread[CT]),
            "mr_mae": np.abs(found.made[MR_T1] - found.mr).mean(),
            "mr_lookup": np.abs(found.guess[MR_T1] - found.mr).mean(),
        })  # fmt: skip
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def calibrated_spread(flows: Mapping[str, Flow], pairs: Sequence[RealPair]) -> dict[str, float]:
    """Factors on the standard deviations with which 90 % intervals hold 90 % of the voxels that were held out.

    Each patient counts alike; the factor is 1 without any.
    """
    ratios: dict[str, list[float]] = {name: [] for name in flows}
    for pair in pairs:
        found = judge(flows, pair)
        for target, truth in ((CT, found.ct), (MR_T1, found.mr)):
            ratio = np.abs(found.made[target] - truth) / np.maximum(found.spread[target], 1e-6)
            ratios[target].append(float(np.quantile(ratio, 0.9)) / NINETY)
    return {name: round(float(np.mean(values)), 4) if values else 1.0 for name, values in ratios.items()}


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of two masks, bool (n,) each."""
    return float(2 * np.count_nonzero(found & truth) / max(np.count_nonzero(found) + np.count_nonzero(truth), 1))
