"""Training of the flows of translation: first mostly on MRs simulated from CTs, then mostly on real pairs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from ...core.atomic_files import atomic_path
from ...core.errors import InputError, ModelError
from ...core.file_hash import file_sha256
from ...core.precision import autocast
from ...core.progress import CancelToken
from ...datasets.datalist import read_datalist, refuse_shared_patients
from ...datasets.prepared_cases import Case, open_cases
from ...imaging.haar import haar_forward
from ...imaging.intensity import HU_LIMIT, to_network
from ...multimodal.aligned import find_encoders
from ...multimodal.familiarity import learn_familiarity
from ...multimodal.flow import FlowConfig
from ...multimodal.flow_file import Flows, load_flows
from ...multimodal.guidance import BANDS, Source
from ...multimodal.local_guess import LocalGuess, fit_local_guess
from ...multimodal.mr_intensity import FAT
from ...multimodal.names import CT, MR_T1
from ...multimodal.nearest_neighbor import learn_neighbors
from ...multimodal.pairs import SPACING_MM, Pair, fat_agreement, prepare_pairs
from ...multimodal.trunk_flow import make_flow, trunk_of
from ..loop import LoopConfig, Observer, TrainingLoop
from ..processes import Processes
from .run import check_same_run, launch
from .shift_tolerant import REACH, best_shift, shifted
from .translation_twins import TwinLoss
from .translation_validation import BONE_HU, calibrated_spread, chosen_strength, figures, judge
from .translation_windows import RealPair, TranslationWindows, Window

LEAST_AGREEMENT = 0.4
"""Of a pair that teaches; see :func:`multimodal.pairs.fat_agreement`. Of 22 pairs, leaving out those below 0.75, below
0.6 and none gave guesses with 65.9, 65.1 and 64.2 HU of error on five others: a pair that is off teaches, too."""
GUESS = "guess.safetensors"
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
        invariant_weight: of the visual invariant between results and truths in the loss; 0.1 gained 0.4 and 1.3 of 70
            HU in two short trainings.
        float32: compute in float32, also where the device computes bfloat16 fast.
    """

    window: tuple[int, int, int] = (24, 40, 40)
    batch: int = 3
    seed: int = 0
    simulated_first: float = 0.4
    early: float = 0.6
    late: float = 0.85
    mr_every: int = 5
    absent: float = 0.9
    given: float = 0.94
    spread_weight: float = 0.1
    bone_weight: float = 2.5
    invariant_weight: float = 0.0
    float32: bool = False
    ct: FlowConfig = field(default_factory=lambda: FlowConfig((MR_T1,)))
    mr: FlowConfig = field(default_factory=lambda: FlowConfig((CT,), channels=(16, 32, 48)))
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=450,
            learning_rate=1.5e-3,
            decay_share=0.6,
            ema=0.995,
            validate_every=225,
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
        self.flows = nn.ModuleDict({name: make_flow(config) for name, config in configs.items()})

    def fit_lookups(self, pairs: Sequence[RealPair]) -> None:
        """Fill the tables of first guesses from pairs."""
        rows = [(row.pair, row.pair.seen & row.pair.body & row.mr_body) for row in pairs]
        hounsfield = np.concatenate([to_network(pair.hounsfield[used]) for pair, used in rows])
        signal = np.concatenate([FAT.to_network(pair.mr[used]) for pair, used in rows])
        for target, source, values in ((CT, signal, hounsfield), (MR_T1, hounsfield, signal)):
            (table,) = self.flows[target].lookup.values()  # type: ignore[union-attr,operator]
            table.fit(source, values)

    def forward(self, target: str, windows: Sequence[Window], sigmas: torch.Tensor, noise: torch.Tensor,
                config: TranslationConfig, twins: TwinLoss | None = None) -> torch.Tensor:  # fmt: skip
        """Mean loss of windows.

        Args:
            sigmas: (2, B) noise levels of target and source.
            noise: (2, B, 1, D, H, W) unit noise of both.
            twins: visual invariant, where it counts.
        """
        flow: Any = self.flows[target]
        device = next(flow.parameters()).device
        sigmas, noise = sigmas.to(device), noise.to(device)
        roles = zip(*(_roles(window, target) for window in windows), strict=True)
        truth, image, body = (torch.stack(part).to(device) for part in roles)
        seen, weight, start = (
            torch.stack([getattr(window, name) for window in windows]).to(device)
            for name in ("seen", "weight", "guess")
        )
        sigma, source_sigma = sigmas
        level, source_level = (torch.nan_to_num(s, posinf=0.0)[:, None, None, None, None] for s in sigmas)
        if target == CT:
            weight = weight * (1 + (config.bone_weight - 1) * (truth > BONE_HU / HU_LIMIT))
        noisy = (source_sigma > 0)[:, None, None, None, None]
        guess = start if target == CT else None
        source = Source(image + source_level * noise[1], source_sigma, seen, torch.where(noisy, 1.0, body), guess)
        with autocast(image.device, "float32" if config.float32 else "auto"):
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
        loss = torch.stack(losses).mean()
        return loss if twins is None else loss + config.invariant_weight * twins(estimate.image, truth, target)


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
    initial: Path | None = None,
    trunk: Path | None = None,
    encoders: str | None = None,
    accelerator: str = "auto",
    report: Callable[[str], None] = lambda line: None,
    cancel: CancelToken | None = None,
) -> Flows | None:
    """Train, or continue what ``folder`` holds; the averaged flows, with what the patients held out say of them.

    Under torchrun the processes share preparation and batches, and follow the curve that one would; None in all but the
    first.

    Args:
        datalist: MONAI decathlon JSON whose rows have ``image`` (CT) and ``mr``.
        cache: folder of `meddifffm prepare`, of whose CTs MRs are simulated; None for real pairs alone.
        initial: flows to begin with instead of random ones, of the same size.
        trunk: prior of CTs on whose network the flow of CT is built, and with whose weights it begins.
        encoders: name or file of those by which the visual invariant is judged, where it has a weight; None for those
            that ship.
        report: called by the first process.
        cancel: asks to stop, also while cases are prepared.

    Raises:
        InputError: no pairs, ``folder`` holds a run with other settings, a batch that cannot be divided, or the visual
            invariant in several processes.
        ModelError: the initial flows, the trunk or the encoders cannot be read, or are of another size.
    """
    prior = None if trunk is None else trunk_of(trunk)
    if prior is not None:
        config = replace(config, ct=config.ct.on(prior.config))
    digests = {name: file_sha256(path) if path else "" for name, path in (("initial", initial), ("trunk", trunk))}
    record = {**json.loads(json.dumps(asdict(config))), **digests}
    twins = TwinLoss(find_encoders(encoders)) if config.invariant_weight else None
    check_same_run(folder, record)
    fabric = launch(accelerator, 1, 1, partly=True)
    processes = Processes.of(fabric)
    if twins is not None and processes.count > 1:
        raise InputError(
            "The visual invariant compares the windows of a whole batch with each other.",
            "Leave it out, or train in one process.",
        )
    mine, tell = processes.even_share(config.batch), processes.telling(report, cancel)
    entries = read_datalist(datalist)
    refuse_shared_patients(entries)
    processes.make(entries, lambda rows: prepare_pairs(rows, folder / "pairs", tell))
    pairs = {split: prepare_pairs([e for e in entries if e.split == split], folder / "pairs", tell)
             for split in ("training", "validation")}  # fmt: skip
    if not pairs["training"]:
        raise InputError(f"{datalist.name} names no training pairs.", 'Give rows with "image" (CT) and "mr".')
    held_out = {pair.patient for pair in pairs["validation"]}
    rows = [RealPair.of(pair) for pair in well_aligned(pairs["training"], tell)]
    if processes.first and not (folder / GUESS).exists():
        tell("training the first guess")
        _keep_guess(rows, folder / GUESS, config.seed)
    processes.wait()
    guess, rows = _guessed(rows, folder / GUESS)
    windows = TranslationWindows(rows, _simulable(cache, held_out), config.window, config.seed, guess)
    torch.manual_seed(config.seed)
    module = FlowTraining({CT: config.ct, MR_T1: config.mr})
    if prior is not None:
        module.flows[CT].begin_with(prior)  # type: ignore[operator]
    if initial is not None:
        _begin_with(module, load_flows(initial))
    module.fit_lookups(rows)
    module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    held = [RealPair.of(pair).guessed(guess) for pair in pairs["validation"]]

    def validate(flows: nn.Module) -> dict[str, float]:  # all processes go by the first one's
        if not processes.first:
            return {}
        return figures([judge(flows.flows, row) for row in held], {CT: 1.0, MR_T1: 1.0})  # type: ignore[arg-type]

    loop = TrainingLoop(
        module, lambda net, step: _loss(net, step, windows, config, mine, twins), validate if held else None,
        config.loop, folder, fabric, _Report(report if processes.first else _silent, config.loop.log_every, cancel),
    )  # fmt: skip
    loop.resume()
    if processes.first:
        with atomic_path(folder / "config.json", overwrite=True) as temporary:
            temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    trained: Any = loop.run()
    if not processes.first:
        return None
    flows = {name: flow.eval().requires_grad_(False) for name, flow in trained.flows.items()}
    judged = [judge(flows, row) for row in held]
    strength = chosen_strength(judged)
    facts = {
        "steps": loop.step,
        "pairs": len(rows),
        "simulated_from": len(windows.cases),
        "validation": figures(judged, {name: 1.0 for name in flows}) if held else {},
        **({"trunk": digests["trunk"]} if trunk else {}),
    }
    images, others = ([(row.image, row.mr_body) for row in part] for part in (rows, held))
    familiarity = learn_familiarity(images, others, SPACING_MM, config.seed)
    table = [(image, to_network(row.pair.hounsfield), body & row.pair.body)
             for (image, body), row in zip(images, rows, strict=True)]  # fmt: skip
    neighbors = learn_neighbors(table, SPACING_MM, config.seed)
    spread = calibrated_spread(judged, strength)
    return Flows(flows, spread, strength, familiarity, neighbors, guess, facts=facts)


def _begin_with(module: FlowTraining, initial: Flows) -> None:
    """Take over the weights of flows of the same size."""
    for name, flow in module.flows.items():
        found = initial.flows[name]
        if found.config != flow.config:  # type: ignore[union-attr]
            raise ModelError(
                f"The initial flow of {name} has other sizes than the one that is trained.",
                "Begin with weights of the same sizes, on the same --trunk, or with none.",
            )
        flow.load_state_dict(found.state_dict())


def _keep_guess(rows: Sequence[RealPair], path: Path, seed: int) -> None:
    """Train the first guess, and one for each patient by networks that did not train on that patient."""
    from safetensors.torch import save_file

    guess, others = fit_local_guess([row.example() for row in rows], SPACING_MM, seed)
    kept = nn.ModuleList([guess, *(others[patient] for patient in sorted(others))])
    with atomic_path(path, overwrite=True) as temporary:
        save_file({name: tensor.clone() for name, tensor in kept.state_dict().items()}, temporary)


def _guessed(rows: Sequence[RealPair], path: Path) -> tuple[LocalGuess, list[RealPair]]:
    """The first guess, and the pairs, each with the guess of networks that did not train on its patient: the flow
    learns to correct errors as large as those on new patients."""
    from safetensors.torch import load_file

    patients = sorted({row.pair.patient for row in rows})
    kept: Any = nn.ModuleList(LocalGuess() for _ in range(len(patients) + 1))
    kept.load_state_dict(load_file(path))
    whole, *found = kept.eval().requires_grad_(False)
    own = dict(zip(patients, found, strict=True))
    return whole, [row.guessed(own[row.pair.patient]) for row in rows]


def _silent(line: str) -> None:
    """Report of a process that does not speak for all."""


class _Report(Observer):
    """A line now and then; ends the training where the user cancelled."""

    def __init__(self, report: Callable[[str], None], every: int, cancel: CancelToken | None = None) -> None:
        self.report, self.every, self.smooth = report, every, math.nan
        self.cancel = cancel

    def wants_stop(self) -> bool:
        return self.cancel is not None and self.cancel.cancelled

    def stepped(self, row: dict[str, float]) -> None:
        self.smooth = row["loss"] if math.isnan(self.smooth) else 0.98 * self.smooth + 0.02 * row["loss"]
        if row["step"] % self.every == 0:
            self.report(f"step {row['step']}  loss {self.smooth:.3f}  {row['seconds']:.2f} s")


def well_aligned(pairs: Sequence[Pair], report: Callable[[str], None]) -> list[Pair]:
    """The pairs whose images lie on each other; all of them if none does."""
    agreeing = []
    for pair in pairs:
        agreement = fat_agreement(pair)
        if agreement >= LEAST_AGREEMENT:
            agreeing.append(pair)
        else:
            report(f"{pair.name} is left out: {agreement:.0%} of the CT's fat is bright in the MR")
    return agreeing or list(pairs)


def _simulable(cache: Path | None, held_out: set[str]) -> list[Case]:
    """Prepared training CTs with tissue classes of patients that do not judge."""
    if cache is None:
        return []
    cases = open_cases(cache, "training")
    return [case for case in cases if case.patient not in held_out and case.levels[0].tissue is not None]


def _loss(
    module: nn.Module,
    step: int,
    windows: TranslationWindows,
    config: TranslationConfig,
    mine: slice,
    twins: TwinLoss | None = None,
) -> torch.Tensor:
    """Mean loss of a process' share of a step's windows, a pure function of its number and the weights."""
    target = MR_T1 if step % config.mr_every == config.mr_every - 1 else CT
    share = config.real_share(step) if target == CT else config.late  # simulated contrasts teach no real one
    numbers = range(step * config.batch, (step + 1) * config.batch)[mine]
    drawn = [windows.draw(number, share) for number in numbers]
    rng = np.random.default_rng([config.seed, step, 1])
    sigmas = np.exp(rng.uniform(math.log(LOWEST), math.log(HIGHEST), (2, config.batch)))
    sigmas[0, rng.random(config.batch) < config.absent] = np.inf
    kind = rng.random(config.batch)
    sigmas[1] = np.where(kind < config.given, 0.0, np.where(kind > 0.5 + config.given / 2, np.inf, sigmas[1]))
    noise = torch.randn((2, config.batch, 1, *config.window), generator=torch.Generator().manual_seed(step))
    levels = torch.from_numpy(sigmas.astype(np.float32))
    return module(target, drawn, levels[:, mine], noise[:, mine], config, twins)
