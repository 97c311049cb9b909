"""MedDiff-FM: one 3-D CT diffusion prior behind many tools.

The front door::

    import MedDiffFMLib as mdf

    volume = mdf.read_volume("thorax.nrrd")
    model = mdf.load_model("starter-ct")
    result = mdf.anomaly(volume, model, threshold=3.0)
    mdf.write_volume(result.volumes["anomaly"], "anomaly.nrrd")

Every task of the table in ``tasks/registry.py`` is a function here. Names are looked up when they are first used, so
importing is cheap: torch and monai are imported by what needs them. The library never imports ``slicer``, ``qt`` or
``ctk``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .core.devices import allow_fallback

allow_fallback()
__version__ = "1.0.0"

_HOMES = {
    "MedDiffFMError": "core.errors",
    "InputError": "core.errors",
    "OutputError": "core.errors",
    "ModelError": "core.errors",
    "DeviceError": "core.errors",
    "MemoryShortage": "core.errors",
    "DependencyError": "core.errors",
    "Cancelled": "core.errors",
    "CancelToken": "core.progress",
    "ProgressEvent": "core.progress",
    "Volume": "imaging.volume",
    "read_volume": "imaging.io",
    "write_volume": "imaging.io",
    "FoundationModel": "models.checkpoint",
    "load_model": "models.checkpoint",
    "list_models": "models.catalogue",
    "Result": "api.result",
    "RunSettings": "runner.settings",
    "Dataset": "api.dataset",
    "finetune": "api.training",
    "read_sentences": "multimodal.facts.grammar",
    "understand_prompt": "multimodal.facts.prompt",
}
"""Name -> module that defines it; the tasks are in ``api.tasks``."""

if TYPE_CHECKING:  # what type checkers and editors see; the functions of the tasks are in api/tasks.pyi
    from .api.dataset import Dataset as Dataset
    from .api.result import Result as Result
    from .api.tasks import *  # noqa: F403
    from .api.training import finetune as finetune
    from .core.errors import Cancelled as Cancelled
    from .core.errors import DependencyError as DependencyError
    from .core.errors import DeviceError as DeviceError
    from .core.errors import InputError as InputError
    from .core.errors import MedDiffFMError as MedDiffFMError
    from .core.errors import MemoryShortage as MemoryShortage
    from .core.errors import ModelError as ModelError
    from .core.errors import OutputError as OutputError
    from .core.progress import CancelToken as CancelToken
    from .core.progress import ProgressEvent as ProgressEvent
    from .imaging.io import read_volume as read_volume
    from .imaging.io import write_volume as write_volume
    from .imaging.volume import Volume as Volume
    from .models.catalogue import list_models as list_models
    from .models.checkpoint import FoundationModel as FoundationModel
    from .models.checkpoint import load_model as load_model
    from .multimodal.facts.grammar import read_sentences as read_sentences
    from .multimodal.facts.prompt import understand_prompt as understand_prompt
    from .runner.settings import RunSettings as RunSettings
else:

    def __getattr__(name: str) -> Any:
        """Import a name of the front door when it is first used."""
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = importlib.import_module(f".{_HOMES.get(name, 'api.tasks')}", __name__)
        try:
            globals()[name] = value = getattr(home, name)
        except AttributeError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        return value

    def __dir__() -> list[str]:
        """The names of the front door."""
        return sorted(["__version__", *_HOMES, *dir(importlib.import_module(".api.tasks", __name__))])
