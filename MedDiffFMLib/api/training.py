"""Fine-tuning through the front door: the data may be a dataset, a folder or a datalist."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from ..training.finetune import run
from .dataset import Dataset

P = ParamSpec("P")
R = TypeVar("R")


def _of_dataset(train: Callable[Concatenate[str | Path, P], R]) -> Callable[Concatenate[Dataset | str | Path, P], R]:
    """The same function for data of either kind."""

    @functools.wraps(train)
    def finetune(data: Dataset | str | Path, *args: P.args, **kwargs: P.kwargs) -> R:
        return train(data.folder if isinstance(data, Dataset) else data, *args, **kwargs)

    return finetune


finetune = _of_dataset(run.finetune)
