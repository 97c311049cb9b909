"""Scenes to files and back, as File > Save and File > Open do."""

from __future__ import annotations

import tempfile
from pathlib import Path

import slicer


def prepare(scene: object) -> None:
    """Give the scene what it needs to read bundles; Slicer's application does so at its start."""
    cache = slicer.vtkCacheManager()
    cache.SetRemoteCacheDirectory(tempfile.mkdtemp())
    manager = slicer.vtkDataIOManager()
    manager.SetCacheManager(cache)
    scene.SetCacheManager(cache)  # type: ignore[attr-defined]
    scene.SetDataIOManager(manager)  # type: ignore[attr-defined]


def save(path: Path) -> None:
    """Write the scene with all its data as .mrb."""
    prepare(slicer.mrmlScene)
    assert slicer.mrmlScene.WriteToMRB(str(path), None)


def load(path: Path) -> None:
    """Close the scene and open another one."""
    prepare(slicer.mrmlScene)
    assert slicer.mrmlScene.ReadFromMRB(str(path), True)
