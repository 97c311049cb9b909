"""Packages of the extras ``[dicom]`` and ``[pacs]``: imported where they are used, missed in one line."""

from __future__ import annotations

import re
from importlib import import_module, metadata
from typing import Any

from ..core.errors import DependencyError

EXTRAS = {"highdicom": "dicom", "dicomweb_client": "pacs", "pynetdicom": "pacs"}
"""Package -> extra of this project that brings it."""
OLDEST = {"highdicom": (0, 28)}
"""Versions that lack what we use; some programs ship them."""


def needed(module: str, purpose: str) -> Any:
    """A module of a package that not everybody has.

    Args:
        module: dotted name.
        purpose: what it is needed for, as the end of a sentence.

    Raises:
        DependencyError: the package is missing or too old.
    """
    package = module.partition(".")[0]
    name = package.replace("_", "-")
    remedy = f"Install it: pip install --upgrade 'meddifffm[{EXTRAS[package]}]' (in Slicer: pip_install('-U {name}'))."
    try:
        found = import_module(module)
    except ModuleNotFoundError as problem:
        if problem.name != package:
            raise
        raise DependencyError(f"The Python package {name} is missing, which {purpose} needs.", remedy) from None
    oldest, version = OLDEST.get(package, (0, 0)), metadata.version(name)
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < oldest:
        wanted = ".".join(map(str, oldest))
        raise DependencyError(f"{name} {version} is too old: {purpose} needs {wanted} or newer.", remedy)
    return found
