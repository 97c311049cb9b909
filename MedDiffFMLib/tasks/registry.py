"""Tasks by name; command line, worker and panel are built from this table."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .output_kinds import Output, OutputKind

if TYPE_CHECKING:
    import numpy as np


@dataclass
class TaskResult:
    """What every task returns.

    Attributes:
        volumes: output name -> array (k, j, i), on exactly the input's grid or where ``ijk_to_ras`` says. The first one
            is the main result.
        table: findings, one dict a row with the same keys in each; empty where a task has none.
        facts: figures worth reporting (estimated noise, network evaluations, region used ...), JSON-ready.
        warnings: sentences for the user.
        ijk_to_ras: where the volumes lie, from a task that works without a CT or on finer voxels; None for the input's
            grid.
    """

    volumes: dict[str, np.ndarray]
    table: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    ijk_to_ras: np.ndarray | None = None


@dataclass(frozen=True)
class Task:
    """One row of the table.

    Attributes:
        name: name on the command line and in the protocol.
        title: short title for buttons.
        sentence: one sentence for the user.
        module: package of the task: ``spec`` holds its parameter dataclass, ``recipe`` its function.
        function: ``f(volume, model, parameters, *, mask, anatomy, region, seed, progress, cancel) -> TaskResult``.
        parameters: name of the parameter dataclass.
        needs_volume: whether it works on a CT. A task that makes one takes none; its ``volume`` is the organ map, whose
            grid the result takes, or None without a map.
        synthetic: whether its result shows no patient, or what the patient does not have; files of it are marked.
        needs_mask: whether a mask on the input's grid must be given.
        takes_mask: whether a mask may be given.
        outputs: the volumes in its result, the main one first; nothing is overwritten unasked because of it.
        findings: whether its result has a table.
    """

    name: str
    title: str
    sentence: str
    module: str
    function: str
    parameters: str
    needs_volume: bool = True
    synthetic: bool = False
    needs_mask: bool = False
    takes_mask: bool = False
    outputs: tuple[Output, ...] = ()
    findings: bool = False

    def parameter_class(self) -> type:
        """The parameter dataclass; cheap, imports no torch."""
        return getattr(importlib.import_module(f"{self.module}.spec"), self.parameters)

    @property
    def output_names(self) -> list[str]:
        """Names of the volumes in its result, the main one first."""
        return [output.name for output in self.outputs]

    def output(self, name: str) -> Output:
        """What a volume of the result is; one of several structures is what the output that its name begins with is."""
        for output in self.outputs:
            if name == output.name:
                return output
            if name.startswith(f"{output.name}_"):
                return Output(name, output.kind)
        return Output(name, OutputKind.VALUES)

    def run(self) -> Callable[..., TaskResult]:
        """The task function."""
        return getattr(importlib.import_module(f"{self.module}.recipe"), self.function)


_PACKAGE = __name__.rpartition(".")[0]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "denoise", "Denoise", "Removes noise and shows what was removed.",
            f"{_PACKAGE}.denoise", "denoise", "DenoiseParameters",
            outputs=(Output("denoised", OutputKind.CT), Output("noise", OutputKind.DIFFERENCE)),
        ),
        Task(
            "anomaly", "Anomaly", "Marks regions that the model would not expect in normal tissue.",
            f"{_PACKAGE}.anomaly", "anomaly", "AnomalyParameters",
            outputs=(
                Output("anomaly", OutputKind.Z_SCORE),
                Output("healthy", OutputKind.CT, "normal tissue"),
                Output("uncertainty", OutputKind.HU_SPREAD),
            ),
            findings=True, takes_mask=True,
        ),
        Task(
            "inpaint", "Fill", "Fills a mask with healthy tissue.",
            f"{_PACKAGE}.inpaint", "inpaint", "InpaintParameters", needs_mask=True,
            outputs=(Output("inpainted", OutputKind.CT, "filled"),),
        ),
        Task(
            "synthesize", "Synthesize", "Makes a whole CT that shows no patient.",
            f"{_PACKAGE}.synthesize", "synthesize", "SynthesizeParameters",
            outputs=(Output("synthetic", OutputKind.CT),), needs_volume=False, synthetic=True,
        ),
        Task(
            "super_resolve", "Super-resolution", "Makes thin slices out of thick ones, or halves every voxel.",
            f"{_PACKAGE}.super_resolve", "super_resolve", "SuperResolveParameters",
            outputs=(Output("fine", OutputKind.CT, "sharpened"),),
        ),
        Task(
            "generate_lesion", "Lesion", "Puts a lesion that the patient does not have into a CT.",
            f"{_PACKAGE}.generate_lesion", "generate_lesion", "GenerateLesionParameters", takes_mask=True,
            outputs=(Output("with_lesion", OutputKind.CT), Output("lesion", OutputKind.MASK)), synthetic=True,
        ),
        Task(
            "segment", "Segment", "Outlines what you outlined in a few other scans, and says how sure it is.",
            f"{_PACKAGE}.segment", "segment", "SegmentParameters", takes_mask=True,
            outputs=(Output("segmentation", OutputKind.LABELS), Output("uncertainty", OutputKind.LABEL_SPREAD)),
        ),
    )
}  # fmt: skip
