"""Synthesis of a whole CT from noise, coarse to fine.

The coarsest stage shows the network the whole box in one window, so that there is one body; where the model has a
companion that was trained on whole bodies alone, that network invents it. Each finer stage upsamples what there is,
drowns what the coarse image lacks in noise (SDEdit, arXiv 2108.01073) and samples from there, with windows that are
blended at every step over one field of noise.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InputError
from ...multimodal.routes import CT_NAME, parse_make
from ..base import Case, Run, TaskResult
from .spec import DEFAULT_SIZE_MM, DEFAULT_SPACING_MM, Synthesize
from .wishes import Wishes

if TYPE_CHECKING:
    import torch

    from ...core.progress import ProgressMeter
    from ...models.checkpoint import FoundationModel
    from .body_layout import Layout
    from .cascade import CascadeStage

DEFAULT_REGION = "chest"


def synthesize(parameters: Synthesize, case: Case, run: Run) -> TaskResult:
    """Make a CT that shows no patient, and what else is asked for.

    Returns:
        ``synthetic`` in HU, int16, and where it lies; by ``make`` and with a prompt more, see :mod:`.joint`.

    Raises:
        ModelError: a companion that cannot be used.
        InputError: a size or a spacing besides a label map, a label map that is empty or holds other numbers, a prompt
            that says nothing, or inputs of which nothing makes a CT.
    """
    from .joint import make_jointly

    if case.scans or case.texts or parse_make(parameters.make) != [CT_NAME]:
        return make_jointly(parameters, case, run)
    return make_ct(parameters, case, run)


def make_ct(parameters: Synthesize, case: Case, run: Run, wishes: Wishes | None = None) -> TaskResult:
    """Make a CT alone.

    Args:
        case: its volume is a label map whose grid the result takes; None for cubic voxels of ``spacing`` that fill
            ``size`` around 0. Its anatomy is the voxels of that volume where it is not given.
        run: without a region that of the wishes, else the chest. The same seed gives the same CT, and the same coarse
            image at every spacing.

    Returns:
        ``synthetic`` in HU, int16, and where it lies.
    """
    import torch

    from ...imaging.grid import from_grid
    from .cascade import plan_stages

    model = run.model
    wishes = wishes or Wishes()
    layout = _layout(case, parameters, run.region or wishes.region or DEFAULT_REGION, wishes)
    inventor, coarse, companion = _inventor(model, parameters)
    stages = plan_stages(layout.grid, int(model.config.get("window", 64)), parameters, coarse)
    windows = [_windows(stage, model) for stage in stages]
    work = sum(count * stage.evaluations for stage, count in zip(stages, windows, strict=True))
    meter = run.meter(work)
    generator = torch.Generator().manual_seed(run.seed)
    meter.weight, meter.stage = windows[0], f"inventing the body, {stages[0].voxel} voxels"
    with inventor:
        image = run_stage(None, stages[0], layout, model, parameters, generator, meter, wishes)
    for stage, count in zip(stages[1:], windows[1:], strict=True):
        meter.weight, meter.stage = count, f"adding detail, {stage.voxel} voxels"
        image = run_stage(image, stage, layout, model, parameters, generator, meter, wishes)
    hounsfield = np.rint(1000 * image[0, 0].numpy()).astype(np.int16)
    target = layout.target
    facts: dict[str, Any] = {
        "region": layout.body.guessed,
        "size_mm": [round(s * n, 3) for s, n in zip(layout.grid.spacing, layout.grid.shape[::-1], strict=True)],
        "spacing_mm": [round(s, 6) for s in layout.grid.spacing],
        "stages": [{**stage.facts(), "windows": count} for stage, count in zip(stages, windows, strict=True)],
        "network_evaluations": sum(stage.evaluations for stage in stages),
        "companion": companion,
    }
    return TaskResult(
        {"synthetic": hounsfield if target is None else from_grid(hounsfield, layout.grid, target)},
        facts=facts,
        warnings=layout.warnings,
        ijk_to_ras={"synthetic": (target or layout.grid).ijk_to_ras},
    )


def _layout(case: Case, parameters: Synthesize, region: str, wishes: Wishes) -> Layout:
    from .body_layout import anatomy_layout, free_layout

    volume = case.volume
    if volume is None:
        spacing = parameters.spacing or wishes.voxel_mm(DEFAULT_SPACING_MM)
        return free_layout(parameters.size or wishes.size or DEFAULT_SIZE_MM, spacing, region)
    if parameters.size is not None or parameters.spacing is not None or wishes.size is not None:
        raise InputError("The anatomy map decides about size and spacing.", "Leave out --size and --spacing.")
    return anatomy_layout(volume, volume.voxels if case.anatomy is None else case.anatomy, region)


def _inventor(
    model: FoundationModel, parameters: Synthesize
) -> tuple[AbstractContextManager[Any], int | None, dict[str, Any] | None]:
    """Context in which the engine runs the network for the coarse image, and of a companion the edge of the windows in
    which it saw whole bodies and what reports say about it."""
    from ...models.companion import find_companion, load_companion

    name = find_companion(model) if parameters.companion == "auto" else parameters.companion
    if name in (None, "none"):
        return nullcontext(), None, None
    denoiser, window, facts = load_companion(str(name), model)
    return model.engine.running(denoiser), window, facts


def _windows(stage: CascadeStage, model: FoundationModel) -> int:
    """Windows that the network is shown at each step, for the progress."""
    from ...inference.sliding_window import OVERLAP
    from ...inference.window_plan import plan_windows

    return len(plan_windows(stage.grid.shape, model.engine.memory_level.window, OVERLAP, model.engine.divisor).boxes)


def run_stage(
    image: torch.Tensor | None,
    stage: CascadeStage,
    layout: Layout,
    model: FoundationModel,
    parameters: Synthesize,
    generator: torch.Generator,
    meter: ProgressMeter | None = None,
    wishes: Wishes | None = None,
) -> torch.Tensor:
    """Sample one stage, (1, 1, D, H, W) in the network's range.

    What ends up in the result is the mean of two evaluations at the last noise level, with windows of either turn:
    one alone leaves a trace of the voxel pairs of the network's stem, that no later step can remove.

    Args:
        image: what the stage before gave, on its own grid; None for a start from noise alone.
        wishes: what a prompt asks for.
    """
    import torch

    from ...diffusion.samplers import dpm_solver_pp_2m, karras_sigmas
    from ...inference.sliding_window import SlidingWindowDenoiser
    from .cascade import upsample

    start = stage.sigma * torch.randn((1, 1, *stage.grid.shape), generator=generator)
    if image is not None:
        start += upsample(image, stage.grid.shape)
    denoiser = SlidingWindowDenoiser(
        model.engine, layout.condition(stage.grid), stage.grid.shape, meter, guidance=parameters.guidance
    )
    sigmas = karras_sigmas(stage.steps, stage.sigma, min(parameters.sigma_min, stage.sigma))

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        x0 = denoiser(x, sigma)
        return (x0 + denoiser(x, sigma)) / 2 if stage.last and sigma == sigmas[-2] else x0

    guided = None if wishes is None else wishes.guidance(layout, stage.grid)
    return dpm_solver_pp_2m(denoise, start, sigmas, guided or (lambda x0, sigma: x0.clamp(-1, 1)))
