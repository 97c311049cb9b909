"""Packages that not everybody has, extras of ``pyproject.toml``: imported where they are used, missed in one line."""

from __future__ import annotations

import re
from importlib import import_module, metadata
from typing import Any

from .errors import DependencyError

EXTRAS = {
    "highdicom": "dicom",
    "dicomweb_client": "pacs",
    "pynetdicom": "pacs",
    "distributed": "cluster",
    "dask_jobqueue": "cluster",
    "submitit": "cluster",
    "SimpleITK": "compare",
    "tensorboard": "logging",
    "mlflow": "logging",
    "huggingface_hub": "hub",
}
"""Package -> extra of this project that brings it."""
OLDEST = {"highdicom": (0, 28)}
"""Versions that lack what we use; some programs ship them."""
_DISTRIBUTIONS = {"mlflow": "mlflow-skinny", "huggingface_hub": "huggingface_hub"}
"""Package -> what pip calls it, where that is not the package's name with hyphens."""


def needed(module: str, purpose: str) -> Any:
    """A module of a package that not everybody has.

    Args:
        module: dotted name.
        purpose: what it is needed for, as the end of a sentence.

    Raises:
        DependencyError: the package is missing or too old.
    """
    package = module.partition(".")[0]
    name = _DISTRIBUTIONS.get(package, package.replace("_", "-"))
    remedy = f"Install it: pip install --upgrade 'meddifffm[{EXTRAS[package]}]' (in Slicer: pip_install('-U {name}'))."
    try:
        found = import_module(module)
    except ModuleNotFoundError as problem:
        if problem.name != package:
            raise
        raise DependencyError(f"The Python package {name} is missing, which {purpose} needs.", remedy) from None
    if package in OLDEST:
        oldest, version = OLDEST[package], metadata.version(name)
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < oldest:
            wanted = ".".join(map(str, oldest))
            raise DependencyError(f"{name} {version} is too old: {purpose} needs {wanted} or newer.", remedy)
    return found
