"""Real MRML nodes and the module's own widget, off screen. Skipped with a reason where the wheels do not exist."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("slicer", reason="slicer-core has no wheel for this platform", exc_type=ImportError)
pytest.importorskip("PySide6.QtWidgets", reason="Qt's system libraries are missing", exc_type=ImportError)

from Testing.harness import application  # noqa: E402
from Testing.harness.geometries import GEOMETRIES, orthogonal  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> application.Application:
    return application.start(tmp_path_factory.mktemp("slicer"))


@pytest.fixture(scope="session")
def module(app: application.Application) -> Any:
    """MedDiffFM.py, loaded as Slicer loads it."""
    return app.load_module()


@pytest.fixture(autouse=True)
def clean(app: application.Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty scene, no settings, a temporary folder of the test's own, and no panel left that follows the scene."""
    app.slicer.mrmlScene.Clear(0)
    app.settings_file.unlink(missing_ok=True)
    import qt

    qt.QSettings().clear()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    app.close_panels()


@pytest.fixture
def fake_python(tmp_path: Path) -> Path:
    """A program that takes a worker's arguments and is the fake worker."""
    if os.name == "nt":
        pytest.skip("needs a program that is a script")
    path = tmp_path / "other" / "bin" / "python"
    path.parent.mkdir(parents=True)
    worker = ROOT / "Testing" / "harness" / "fake_worker.py"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{worker}"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def ct(app: application.Application, request: pytest.FixtureRequest) -> Any:
    """A small volume node that looks like CT: an ellipsoid of tissue in air, with noise."""
    rows = GEOMETRIES[getattr(request, "param", "oblique")]
    generator = np.random.default_rng(7)
    k, j, i = np.mgrid[:20, :24, :28]
    inside = ((k - 9.5) / 9) ** 2 + ((j - 11.5) / 10) ** 2 + ((i - 13.5) / 12) ** 2 < 1
    voxels = np.where(inside, 40, -1000) + generator.normal(0, 20, inside.shape) * inside
    node = app.slicer.util.addVolumeFromArray(voxels.astype(np.int16), orthogonal(rows), "thorax")
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(350, 40)
    return node


@pytest.fixture
def widget(app: application.Application, module: Any, fake_python: Path) -> Iterator[Any]:
    """The module's widget, opened, with the fake worker as its other Python."""
    from MedDiffFMGui.worker.workerPython import WorkerPython

    choice = WorkerPython()
    choice.useOther, choice.otherPath = True, str(fake_python)
    opened = app.open_widget(module)
    opened.taskPanel.choose("denoise")  # what the fake worker gives is a denoised CT
    yield opened
    opened.cleanup()
