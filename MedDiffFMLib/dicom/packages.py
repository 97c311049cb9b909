"""Packages of the extras ``[dicom]`` and ``[pacs]``: imported where they are used, missed in one line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..core.errors import DependencyError

EXTRAS = {"highdicom": "dicom", "dicomweb_client": "pacs", "pynetdicom": "pacs"}
"""Package -> extra of this project that brings it."""


def needed(module: str, purpose: str) -> Any:
    """A module of a package that not everybody has.

    Args:
        module: dotted name.
        purpose: what it is needed for, as the end of a sentence.

    Raises:
        DependencyError: the package is missing.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as problem:
        if problem.name != package:
            raise
        name = package.replace("_", "-")
        remedy = f"Install it: pip install 'meddifffm[{EXTRAS[package]}]' (in Slicer: pip_install('{name}'))."
        raise DependencyError(f"The Python package {name} is missing, which {purpose} needs.", remedy) from None
