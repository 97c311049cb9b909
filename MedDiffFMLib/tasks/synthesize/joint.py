"""Joint results: a prompt is met as far as it can be, and other modalities are made from the one CT.

Whatever is given comes back bit for bit. The CT is given, or made of the X-ray or the MR that is given, or invented;
everything else is calculated from it by the tasks that do so by themselves, hence all of it agrees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InputError
from ...imaging.grid import Grid
from ...imaging.volume import Volume
from ...multimodal.routes import CT_NAME, TEXT_NAME, Route, parse_make, plan_routes
from ..base import Case, Run, TaskResult
from ..output_kinds import OutputKind
from .wishes import Wishes, acquired, met, understand

if TYPE_CHECKING:
    from .spec import Synthesize

MakeCT = Callable[["Synthesize", Case, Run, Wishes], TaskResult]
OUTPUTS = {CT_NAME: "synthetic"}
"""Modality -> name of its output, where that is another one."""
NOT_STEERED = "Nothing steers what was asked for about: {titles}. It was measured only."
GIVEN_CT = "The CT is given or made of an image, so that the prompt steers nothing: what it asks for was measured only."


@dataclass
class _Set:
    """What there is so far.

    Attributes:
        volumes: modality -> image.
        result: what is returned.
    """

    volumes: dict[str, Volume]
    result: TaskResult = field(default_factory=TaskResult)

    def add(self, name: str, volume: Volume) -> None:
        """An image that is given or was made."""
        self.volumes[name] = volume
        output = OUTPUTS.get(name, name)
        self.result.volumes[output] = volume.voxels
        self.result.ijk_to_ras[output] = volume.ijk_to_ras


def make_jointly(parameters: Synthesize, case: Case, run: Run, make_ct: MakeCT) -> TaskResult:
    """Everything that is asked for beside everything that is given.

    Args:
        make_ct: makes one of nobody.

    Returns:
        ``synthetic``, ``mr``, ``xray``: images that are given or made; ``text``: description of the CT; with a prompt
        ``understood`` and ``asked``, a row for each value with what ``describe`` measures of it.
        facts: ``given``, ``made``: modalities; those of the task that made the CT.

    Raises:
        InputError: inputs of which nothing makes a CT, or a prompt that says nothing.
    """
    wanted = parse_make(parameters.make)
    prompt = case.texts.get("prompt")
    wishes = Wishes() if prompt is None else understand(prompt)
    given = [*case.scans, *([] if prompt is None else [TEXT_NAME])]
    if CT_NAME not in wanted and CT_NAME not in case.scans:
        wanted = [CT_NAME, *wanted]  # all else is made from it
    steps = plan_routes(given, wanted)
    made = _Set({})
    for name, scan in case.scans.items():
        made.add(name, scan)
    for step in steps:
        if run.cancel is not None:
            run.meter(1, f"making {step.made}").check()
        if step.source:
            _take(step, made, parameters, run)
        else:
            invented = make_ct(parameters, replace(case, scans={}), run, wishes)
            made.result.facts |= invented.facts
            made.result.warnings += invented.warnings
            made.add(CT_NAME, _as_acquired(invented, wishes, run.seed, case.volume is not None))
    result = made.result
    result.volumes = {
        name: result.volumes[name] for name in sorted(result.volumes, key=lambda name: name != "synthetic")
    }
    result.facts |= {"given": given, "made": [step.made for step in steps]}
    if prompt is not None:
        _compare(result, made.volumes[CT_NAME], prompt, wishes, invented=any(not step.source for step in steps))
    return result


def _take(step: Route, made: _Set, parameters: Synthesize, run: Run) -> None:
    """One step of another task; its warnings are passed on."""
    from ..registry import TASKS

    settings: dict[str, Any] = dict(step.settings)
    if step.task == "radiograph":
        settings["views"] = parameters.views
    quiet = replace(run, progress=None)
    found = TASKS[step.task](**settings).run(Case(made.volumes[step.source]), quiet)
    made.result.warnings += found.warnings
    if step.made == TEXT_NAME:
        made.result.texts[TEXT_NAME] = found.texts[step.output]
        return
    for name, voxels in found.volumes.items():
        further = name.startswith(f"{step.output}_") and TASKS[step.task].output(name).kind is OutputKind.XRAY
        if name == step.output or further:
            _add(made, step, name, voxels, found)


def _add(made: _Set, step: Route, name: str, voxels: np.ndarray, found: TaskResult) -> None:
    """An image of a task; further X-rays have names of their own and are no source of anything."""
    own = step.made + name.removeprefix(step.output)
    place = found.ijk_to_ras.get(name, made.volumes[step.source].ijk_to_ras)
    for about in ("views", "windows"):
        if name in found.facts.get(about, {}):
            made.result.facts.setdefault(about, {})[own] = found.facts[about][name]
    from ..registry import TASKS

    made.add(own, Volume(voxels, place, TASKS[step.task].output(name).kind.modality))


def _as_acquired(invented: TaskResult, wishes: Wishes, seed: int, on_map: bool) -> Volume:
    """The CT with the noise and the slices that are asked for.

    Raises:
        InputError: slices are asked for besides an organ map, which decides about them.
    """
    voxels, matrix = invented.volumes["synthetic"], invented.ijk_to_ras["synthetic"]
    if on_map and wishes.slice_mm is not None:
        raise InputError("The anatomy map decides about the slices.", "Leave them out of the prompt.")
    grid = Grid(voxels.shape, matrix)  # type: ignore[arg-type]
    if wishes.noise is not None or wishes.slice_mm is not None:
        voxels, grid = acquired(voxels, grid, wishes, np.random.default_rng(seed))
    return Volume(voxels, grid.ijk_to_ras)


def _compare(result: TaskResult, ct: Volume, prompt: str, wishes: Wishes, invented: bool) -> None:
    """What was asked for beside what is measured in the CT."""
    from ...multimodal.facts.measure import measure

    rows = met(wishes, measure(ct).facts)
    if not invented:
        result.warnings.append(GIVEN_CT)
        rows = [{**row, "steered": "no"} for row in rows]
    elif wishes.ignored:
        result.warnings.append(NOT_STEERED.format(titles=", ".join(wishes.ignored)))
    result.tables["asked"] = rows
    result.texts["understood"] = f"{prompt}\n{wishes.told}\n"
    result.facts |= {"prompt": prompt, "understood": wishes.told}
