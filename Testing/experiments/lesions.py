"""Generated lesions on held-out cases: would a segmentation network take them for real ones?

    meddifffm finetune --task lesion --data TRAINING.json -o TRAINING --prepare-only
    meddifffm finetune --task lesion --data HELDOUT.json -o HELDOUT --prepare-only
    python Testing/experiments/lesions.py TRAINING/cache HELDOUT/cache [--steps 400] [--seeds 3] [--output FOLDER]

As in the paper's tables VIII and IX (arXiv 2410.15432), on a small scale. A small MONAI U-Net learns to segment the
real lesions of TRAINING. Every lesion of HELDOUT is hidden with its rim and generated anew in its mask, of the same
mean; the segmentation network's Dice on the result is compared with that on the real lesion, and the histogram of HU
in the mask with the real one (Wasserstein distance). Compared: the prior with the shipped ControlNet, the prior with a
ControlNet fine-tuned for --steps, and the same networks trained from scratch, prior too, for as many steps on the same
windows. "flat" is the generators' first guess, a lesion of one density; "healthy" is none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from MedDiffFMLib.conditioning.condition import stack
from MedDiffFMLib.conditioning.known_voxels import biharmonic_init
from MedDiffFMLib.core.precision import autocast
from MedDiffFMLib.diffusion.controlled_denoiser import with_control
from MedDiffFMLib.evaluation.quality.metrics import bootstrap
from MedDiffFMLib.imaging.intensity import to_network
from MedDiffFMLib.models.catalogue import resolve
from MedDiffFMLib.models.checkpoint import build_denoiser, load_denoiser, load_model, read_header
from MedDiffFMLib.models.controlnet_file import find_control, load_control
from MedDiffFMLib.tasks.generate_lesion.recipe import sample_lesion
from MedDiffFMLib.training.finetune.cases import open_control_cases
from MedDiffFMLib.training.finetune.interface import ControlCase
from MedDiffFMLib.training.finetune.lesion import Drawn, Lesion, LesionTask, draw_lesion, lesions_of
from MedDiffFMLib.training.loop import LoopConfig, rate_at

SOFT_TISSUE = (-0.16, 0.24)
"""Second channel of the segmentation network's input, network range."""
SEGMENTER_STEPS = 600
SEGMENTER_BATCH = 4
SAMPLING_STEPS = 12
LEARNING_RATE = 4e-4
BATCH = 2

Maker = Callable[[Drawn, int], np.ndarray]
"""(window, seed) -> HU of the window with another lesion."""


def channels(hounsfield: np.ndarray) -> torch.Tensor:
    """(2, S, S, S): the whole range and soft tissue."""
    image = torch.from_numpy(to_network(hounsfield))
    low, high = SOFT_TISSUE
    return torch.stack([image, ((image - low) / (high - low)).clamp(0, 1)])


def train_segmenter(lesions: list[Lesion], window: int) -> torch.nn.Module:
    """A U-Net that outlines the real lesions."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    network = UNet(3, 2, 1, channels=(16, 32, 64), strides=(2, 2), num_res_units=1, norm="INSTANCE")
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, SEGMENTER_STEPS)
    loss_of = DiceCELoss(sigmoid=True)
    for step in range(SEGMENTER_STEPS):
        rng = np.random.default_rng([1, step])
        drawn = [draw_lesion(lesions[rng.integers(len(lesions))], window, 0.6, rng) for _ in range(SEGMENTER_BATCH)]
        image = torch.stack([channels(one.voxels) for one in drawn])
        target = torch.stack([torch.from_numpy(one.share > 0.5)[None].float() for one in drawn])
        flipped = [axis for axis in (2, 3, 4) if rng.random() < 0.5]
        with autocast(torch.device("cpu")):
            found = network(image.flip(flipped))
        loss = loss_of(found.float(), target.flip(flipped))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def dice(network: torch.nn.Module, hounsfield: np.ndarray, inside: np.ndarray) -> float:
    """Of the segmentation network's outline on an image."""
    with autocast(torch.device("cpu")):
        found = (network(channels(hounsfield)[None])[0, 0] > 0).numpy()
    return float(2 * (found & inside).sum() / max(found.sum() + inside.sum(), 1))


def train_generator(prior: Path, cases: list[ControlCase], task: LesionTask, steps: int, scratch: bool) -> Any:
    """The prior, frozen, with a new ControlNet; or both from random weights, and both trained."""
    torch.manual_seed(0)
    header = read_header(prior)
    denoiser = build_denoiser(header["config"]) if scratch else load_denoiser(prior)
    controlled = with_control(denoiser, task.network())  # type: ignore[arg-type]
    learning: torch.nn.Module = controlled if scratch else controlled.control
    learning.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(learning.parameters(), LEARNING_RATE, betas=(0.9, 0.99))
    samples = task.samples(cases, 3, 0, steps * BATCH)
    pace = LoopConfig(steps=steps, learning_rate=LEARNING_RATE, warmup=max(steps // 10, 1))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, pace)
        batch = task.collate([samples[step * BATCH + n] for n in range(BATCH)])
        with autocast(torch.device("cpu")):
            loss = task.loss(controlled, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning.parameters(), 1.0)
        optimizer.step()
    return controlled.eval().requires_grad_(False)


def maker(denoiser: Any) -> Maker:
    """A lesion by a denoiser with ControlNet, in the mask of the real one."""

    @torch.no_grad()
    def make(drawn: Drawn, seed: int) -> np.ndarray:
        condition = drawn.condition(0.0, 0.0, np.random.default_rng(0))
        assert condition.known is not None and condition.hole is not None
        encoded = stack([condition.encode(drawn.voxels.shape)])  # type: ignore[arg-type]

        def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
            with autocast(torch.device("cpu")):
                return denoiser(x, torch.full((1,), sigma), encoded).float()

        truth = torch.from_numpy(to_network(drawn.voxels))
        known, hole, guess, share = (
            image[None, None] for image in (truth, condition.hole, condition.known, torch.from_numpy(drawn.share))
        )
        generator = torch.Generator().manual_seed(seed)
        made = sample_lesion(denoise, known, hole, guess, share, drawn.mean, SAMPLING_STEPS, 1.0, generator)
        return made[0, 0].numpy() * 1000

    return make


def flat(drawn: Drawn, seed: int) -> np.ndarray:
    """The generators' first guess."""
    known = drawn.condition(0.0, 0.0, np.random.default_rng(0)).known
    assert known is not None
    return known.numpy() * 1000


def healthy(drawn: Drawn, seed: int) -> np.ndarray:
    """No lesion: its surroundings continued."""
    hole = torch.from_numpy(drawn.hole).float()
    return biharmonic_init(torch.from_numpy(to_network(drawn.voxels)), hole, drawn.spacing).numpy() * 1000


def judge(
    makers: dict[str, Maker], lesions: list[Lesion], segmenter: torch.nn.Module, window: int, seeds: int
) -> list[dict[str, Any]]:
    """One row a lesion, method and seed."""
    from scipy.stats import wasserstein_distance

    rows = []
    for number, lesion in enumerate(lesions):
        drawn = draw_lesion(lesion, window, 1.0, np.random.default_rng([2, number]))
        inside = drawn.share > 0.5
        if not inside.any():
            continue
        for name, make in makers.items():
            for seed in range(seeds if name not in ("real", "flat", "healthy") else 1):
                image = make(drawn, seed)
                rows.append(
                    {
                        "case": lesion.case.name,
                        "patient": lesion.case.patient,
                        "lesion": lesion.label,
                        "method": name,
                        "seed": seed,
                        "dice": dice(segmenter, image, inside),
                        "hu_distance": float(wasserstein_distance(image[inside], drawn.voxels[inside])),
                        "spread": float(image[inside].std() / max(drawn.voxels[inside].std(), 1e-6)),
                    }
                )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Means over lesions, of seeds first, with intervals from drawing patients."""
    titles = {"dice": "Dice", "hu_distance": "histogram distance, HU", "spread": "standard deviation over the real one"}
    lines = [f"| method | {' | '.join(titles.values())} |", "|---|---:|---:|---:|"]
    for method in dict.fromkeys(row["method"] for row in rows):
        part = [row for row in rows if row["method"] == method]
        groups: dict[Any, list[dict[str, Any]]] = {}
        for row in part:
            groups.setdefault((row["case"], row["lesion"]), []).append(row)
        patients = [group[0]["patient"] for group in groups.values()]
        cells = []
        for key in titles:
            mean = bootstrap([statistics.fmean(row[key] for row in group) for group in groups.values()], patients)
            cells.append(f"{mean.mean:.2f} [{mean.low:.2f}, {mean.high:.2f}]")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", type=Path)
    parser.add_argument("heldout", type=Path)
    parser.add_argument("--model", default="starter-ct")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--window", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("lesions"))
    options = parser.parse_args()

    task = LesionTask(window=options.window)
    cases = open_control_cases(options.training, "training")
    lesions = [lesion for case in cases for lesion in lesions_of(case)]
    heldout = [
        lesion
        for split in ("training", "validation")
        for case in open_control_cases(options.heldout, split)
        for lesion in lesions_of(case)
    ]
    print(f"{len(lesions)} lesions to learn from, {len(heldout)} to be judged on", flush=True)
    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = function()
        seconds[name] = round(time.process_time() - start, 1)
        print(f"{name}: {seconds[name]} s of processor time", flush=True)
        return result

    prior = resolve(options.model)[1]
    model = load_model(options.model, device="cpu")
    segmenter = timed("segmentation network", lambda: train_segmenter(lesions, options.window))
    makers: dict[str, Maker] = {"real": lambda drawn, seed: drawn.voxels, "flat": flat, "healthy": healthy}
    shipped = find_control("lesion", model)
    if shipped:
        makers[f"prior + {shipped}"] = maker(load_control(shipped, model, "lesion").denoiser)
    for name, scratch in (
        (f"prior + ControlNet, {options.steps} steps", False),
        (f"from scratch, {options.steps} steps", True),
    ):
        found = timed(name, lambda s=scratch: train_generator(prior, cases, task, options.steps, s))
        makers[name] = maker(found)
    rows = judge(makers, heldout, segmenter, options.window, options.seeds)
    options.output.mkdir(parents=True, exist_ok=True)
    record = {"model": model.sha256, "steps": options.steps, "window": options.window, "seconds": seconds, "rows": rows}
    (options.output / "lesions.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    (options.output / "lesions.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
