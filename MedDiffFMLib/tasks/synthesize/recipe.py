"""Synthesis of a whole CT, coarse to fine.

Global first, local then. The anatomy comes from a template that is bent into nobody's body, whose expected image the
prior makes real; or networks invent it: the coarsest stage shows the network the whole box in one window, so that
there is one body; where the model has a companion that was trained on whole bodies alone, that network invents it.

Each finer stage upsamples what there is, drowns what the coarse image lacks in noise (SDEdit, arXiv 2108.01073) and
samples from there, with windows that are blended at every step over one field of noise.
"""

from __future__ import annotations

from collections.abc import Sequence
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
LEAST_BODY_MM = 100.0
"""A smaller box shows no body; the network fills it."""
INVENTED = "No anatomy template shows this: the networks invented the body, which is not fit to show."


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
        return make_jointly(parameters, case, run, make_ct)
    return make_ct(parameters, case, run)


def make_ct(parameters: Synthesize, case: Case, run: Run, wishes: Wishes | None = None) -> TaskResult:
    """Make a CT alone.

    Args:
        case: its volume is a label map whose grid the result takes; None for cubic voxels of ``spacing`` that fill
            ``size`` around 0. Its anatomy is the voxels of that volume where it is not given.
        run: without a region that of the wishes, else the chest. The same seed gives the same CT, and the same body at
            every spacing.

    Returns:
        ``synthetic`` in HU, int16, and where it lies.
    """
    import torch

    from ...imaging.grid import from_grid

    wishes = wishes or Wishes()
    layout = _layout(case, parameters, run.region or wishes.region or DEFAULT_REGION, run.seed, wishes)
    generator = torch.Generator().manual_seed(run.seed)
    made = _invented if layout.anatomy is None else _refined
    image, stages, companion = made(layout, parameters, run, generator, wishes)
    hounsfield = np.rint(1000 * image[0, 0].numpy()).astype(np.int16)
    target = layout.target
    facts: dict[str, Any] = {
        "region": layout.body.guessed,
        "size_mm": [round(s * n, 3) for s, n in zip(layout.grid.spacing, layout.grid.shape[::-1], strict=True)],
        "spacing_mm": [round(s, 6) for s in layout.grid.spacing],
        "stages": [{**stage.facts(), "windows": _windows(stage, run.model)} for stage in stages],
        "network_evaluations": sum(stage.evaluations for stage in stages),
        "companion": companion,
        "anatomy": None if layout.anatomy is None else layout.anatomy.facts(),
    }
    return TaskResult(
        {"synthetic": hounsfield if target is None else from_grid(hounsfield, layout.grid, target)},
        facts=facts,
        warnings=layout.warnings,
        ijk_to_ras={"synthetic": (target or layout.grid).ijk_to_ras},
    )


def _invented(
    layout: Layout, parameters: Synthesize, run: Run, generator: torch.Generator, wishes: Wishes
) -> tuple[torch.Tensor, list[CascadeStage], dict[str, Any] | None]:
    """Image that the networks invent from noise, its stages, and what reports say about a companion."""
    from .cascade import plan_stages

    inventor, coarse, companion = _inventor(run.model, parameters)
    stages = plan_stages(layout.grid, int(run.model.config.get("window", 64)), parameters, coarse)
    meter = run.meter(_work(stages, run.model))
    meter.weight, meter.stage = _windows(stages[0], run.model), f"inventing the body, {stages[0].voxel} voxels"
    with inventor:
        image = run_stage(None, stages[0], layout, run.model, parameters, generator, meter, wishes)
    return _finer(image, stages[1:], layout, parameters, run, generator, meter, wishes), stages, companion


def _refined(
    layout: Layout, parameters: Synthesize, run: Run, generator: torch.Generator, wishes: Wishes
) -> tuple[torch.Tensor, list[CascadeStage], None]:
    """Image that the prior makes of the one that is expected of an anatomy, and its stages."""
    import torch

    from .bent_body import BentBody, with_bone
    from .cascade import plan_refinement

    assert layout.anatomy is not None
    stages = plan_refinement(layout.grid, parameters)
    meter = run.meter(_work(stages, run.model))
    image = torch.from_numpy(layout.anatomy.expected(stages[0].grid) / 1000)[None, None]
    # An organ map knows no density of bone, and how much bone a prompt asks for decides the prior.
    bone = layout.anatomy if isinstance(layout.anatomy, BentBody) and wishes.asked("bone", "share") is None else None
    for stage in stages:
        image = _finer(image, [stage], layout, parameters, run, generator, meter, wishes)
        if bone is not None:
            given, tissue = bone.expected(stage.grid), bone.tissue(stage.grid)
            whole = with_bone(1000 * image[0, 0].numpy(), given, tissue, stage.grid.spacing)
            image = torch.from_numpy((whole / 1000).astype(np.float32)).clamp(-1, 1)[None, None]
    return image, stages, None


def _finer(
    image: torch.Tensor,
    stages: Sequence[CascadeStage],
    layout: Layout,
    parameters: Synthesize,
    run: Run,
    generator: torch.Generator,
    meter: ProgressMeter,
    wishes: Wishes,
) -> torch.Tensor:
    for stage in stages:
        meter.weight, meter.stage = _windows(stage, run.model), f"adding detail, {stage.voxel} voxels"
        image = run_stage(image, stage, layout, run.model, parameters, generator, meter, wishes)
    return image


def _work(stages: Sequence[CascadeStage], model: FoundationModel) -> int:
    return sum(_windows(stage, model) * stage.evaluations for stage in stages)


def _layout(case: Case, parameters: Synthesize, region: str, seed: int, wishes: Wishes) -> Layout:
    from .body_layout import anatomy_layout, bent_layout, free_layout

    volume = case.volume
    if volume is None:
        spacing = wishes.voxel_mm(parameters.spacing or DEFAULT_SPACING_MM)
        size = parameters.size or wishes.size
        roomy = size is None or min(size) >= LEAST_BODY_MM or parameters.layout == "template"
        if parameters.layout != "network" and roomy:
            bent = bent_layout(parameters.size, spacing, region, seed, wishes.contrast, wishes.measures)
            if bent is not None:
                return bent
        if parameters.layout == "template":
            raise InputError(
                f"No anatomy template shows the region {region} in a box of this size.",
                "Choose head-neck, chest, abdomen, pelvis or whole-body, a smaller size, or --layout network.",
            )
        return free_layout(size or DEFAULT_SIZE_MM, spacing, region, [INVENTED] if roomy else None)
    if parameters.size is not None or parameters.spacing is not None or wishes.size is not None:
        raise InputError("The anatomy map decides about size and spacing.", "Leave out --size and --spacing.")
    labels = volume.voxels if case.anatomy is None else case.anatomy
    return anatomy_layout(volume, labels, region, parameters.layout != "network")


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
