"""Datasets for fine-tuning: the folder of ``datasets/dataset_folder.py`` with importers and check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.progress import CancelToken
from ..datasets import dataset_folder
from ..datasets.check import Needs, check_dataset
from ..datasets.check_report import CheckReport
from ..datasets.dataset_folder import DatasetCase
from ..datasets.importers import Added, add_datalist, add_files, find_pairs
from ..training.finetune.registry import finetune_task
from .inputs import LabelsLike, VolumeLike, as_labels, as_volume


def _silent(line: str) -> None:
    """Report nothing."""


class Dataset(dataset_folder.Dataset):
    """A dataset folder: cases to fine-tune on, with their masks and names of labels.

    Args:
        folder: as made by :meth:`create`.

    Raises:
        InputError: ``folder`` is no dataset.
    """

    @classmethod
    def create(cls, folder: str | Path, title: str = "") -> Dataset:
        """Make a dataset, or open the one that is there.

        Raises:
            OutputError: the folder holds something else, or cannot be written.
        """
        super().create(folder, title)
        return cls(folder)

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def datalist(self) -> Path:
        """The same cases as a MONAI decathlon datalist, rewritten after each change."""
        return self.folder / "datalist.json"

    def add(
        self,
        name: str,
        image: VolumeLike,
        label: LabelsLike | None = None,
        *,
        anatomy: LabelsLike | None = None,
        patient: str | None = None,
        region: str | None = None,
        source: str = "",
        labels: Mapping[int, Any] | None = None,
    ) -> DatasetCase:
        """Add one case, complete or not at all.

        Args:
            name: unique in the dataset.
            image: CT, or the path of one.
            label: mask on the CT's grid: volume, array (k, j, i) or path; 0 is background.
            anatomy: organ labels (TotalSegmentator numbers), in the same way.
            patient: cases of one patient are never split; ``name`` where it is not given.
            region: region class, "none", or None for an automatic guess.
            source: SHA-256 of the files it comes from, if it comes from files.
            labels: what the numbers in the mask stand for: a name, or an object with ``name``, ``color``,
                ``terminology``.

        Raises:
            InputError: no CT, a mask on another grid or of values that are no labels, or the name is taken.
            OutputError: the folder cannot be written.
        """
        volume = as_volume(image)
        maps = [None if source_map is None else as_labels(source_map, volume) for source_map in (label, anatomy)]
        return super().add(
            name, volume, maps[0], anatomy=maps[1], patient=patient, region=region, source=source, labels=labels
        )

    def add_pairs(
        self,
        folder: str | Path,
        patient_pattern: str | None = None,
        *,
        report: Callable[[str], None] = _silent,
        cancel: CancelToken | None = None,
    ) -> list[Added]:
        """Add every image below ``folder`` with its mask; files that were added before are kept as they are.

        Args:
            patient_pattern: regular expression whose first group is the patient in a case's name.
            report: receives a line for each case.

        Raises:
            InputError: no images, or masks that belong to none.
        """
        return add_files(self, find_pairs(folder, patient_pattern), report=report, cancel=cancel)

    def add_datalist(
        self, path: str | Path, *, report: Callable[[str], None] = _silent, cancel: CancelToken | None = None
    ) -> list[Added]:
        """Add the cases of a MONAI decathlon datalist with its split and its labels.

        Raises:
            InputError: no datalist, or a patient in two splits.
        """
        return add_datalist(self, Path(path), report=report, cancel=cancel)

    def check(
        self,
        task: str = "lesion",
        *,
        window: int = 64,
        labels: Sequence[int] = (),
        report: Callable[[str], None] = _silent,
        cancel: CancelToken | None = None,
    ) -> CheckReport:
        """Read every case once and list what would make training on it fail or mislead.

        Args:
            task: name of the fine-tuning task.
            window: edge of the training windows in voxels.
            labels: numbers in the masks that count; empty for all.

        Returns:
            Report with ``errors``, ``warnings`` and ``text()``.

        Raises:
            InputError: there is no such task.
        """
        row = finetune_task(task)
        needs = Needs(task, row.needs_mask, window, tuple(labels), few=row.few)
        return check_dataset(self.folder, needs, report=report, cancel=cancel)
