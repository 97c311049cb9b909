"""Fine-tuning tasks by name; command line and panel are built from this table.

Nothing here imports torch; a row names the modules that do the work.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...core.errors import InputError

if TYPE_CHECKING:
    from .adapters import Adapter
    from .interface import ControlTask


@dataclass(frozen=True)
class FinetuneTask:
    """One row of the table.

    Attributes:
        name: name on the command line.
        title: short title for buttons.
        sentence: one sentence for the user.
        needs_mask: whether every case must come with a mask.
        used_by: task of ``tasks.registry`` that uses the result.
        module, function: give the :class:`.interface.ControlTask`; called with the task's options.
        adapter_module, adapter_class: join what is trained to the frozen prior and write it.
        option: of that task, which takes the result's name.
        keeps_labels: whether the numbers in the masks are classes; else each connected part becomes one lesion.
        few: whether a handful of patients is enough, so that none is set aside to validate unless named.
    """

    name: str
    title: str
    sentence: str
    needs_mask: bool
    used_by: str
    module: str
    function: str
    adapter_module: str = "adapters"
    adapter_class: str = "ControlAdapter"
    option: str = "control"
    keeps_labels: bool = False
    few: bool = False

    def task(self, **options: Any) -> ControlTask:
        """Task: what is learned, from which samples, and how it is judged.

        Raises:
            InputError: the task has no such option.
        """
        module = importlib.import_module(f"{__package__}.{self.module}")
        try:
            return getattr(module, self.function)(**options)
        except TypeError as error:
            raise InputError(
                f"The task {self.name} does not know these options ({error}).", "Leave them out."
            ) from error

    def adapter(self) -> Adapter:
        """Adapter that is trained beside the prior."""
        module = importlib.import_module(f"{__package__}.{self.adapter_module}")
        return getattr(module, self.adapter_class)()


FINETUNE_TASKS: dict[str, FinetuneTask] = {
    task.name: task
    for task in (
        FinetuneTask(
            "super-resolution",
            "Super-resolution",
            "Thick slices become thin ones, as your scanner makes them.",
            needs_mask=False,
            used_by="super_resolve",
            module="super_resolution",
            function="SuperResolutionTask",
        ),
        FinetuneTask(
            "lesion",
            "Lesions",
            "Lesions like those that your masks mark are generated in other scans.",
            needs_mask=True,
            used_by="generate_lesion",
            module="lesion",
            function="LesionTask",
        ),
        FinetuneTask(
            "segmentation",
            "Segmentation",
            "Structures that your masks outline in a few scans are found in others.",
            needs_mask=True,
            used_by="segment",
            module="segmentation",
            function="segmentation_task",
            adapter_module="segmentation",
            adapter_class="SegmentationAdapter",
            option="head",
            keeps_labels=True,
            few=True,
        ),
    )
}


def finetune_task(name: str) -> FinetuneTask:
    """A row by name; raises InputError if there is none."""
    if name not in FINETUNE_TASKS:
        raise InputError(f"There is no fine-tuning task called {name!r}.", f"Choose {' or '.join(FINETUNE_TASKS)}.")
    return FINETUNE_TASKS[name]
