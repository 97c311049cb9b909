"""The tests that ctest runs in a real Slicer, run here first, and the sample data as Slicer would offer them."""

from __future__ import annotations

import importlib.util
import sys
import types
import unittest
from pathlib import Path
from typing import Any

import pytest

from Testing.harness import sample_data

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def slicer_with_module(app: Any, widget: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``slicer.modules.meddifffm`` and the module SampleData, as a running Slicer has them."""
    monkeypatch.setitem(sys.modules, "SampleData", sample_data.module())
    representation = types.SimpleNamespace(self=lambda: widget)
    loaded = types.SimpleNamespace(widgetRepresentation=lambda: representation)
    monkeypatch.setattr(app.slicer.modules, "meddifffm", loaded, raising=False)
    monkeypatch.setattr(app.slicer.modules, "sampleDataSources", {}, raising=False)
    return app.slicer


@pytest.mark.slow
def test_tests_of_the_build_pass(slicer_with_module: Any) -> None:
    path = ROOT / "MedDiffFM" / "Testing" / "Python" / "MedDiffFMModuleTest.py"
    spec = importlib.util.spec_from_file_location("MedDiffFMModuleTest", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromModule(module).run(result)
    assert result.testsRun == 6
    assert not result.errors and not result.failures, (result.errors + result.failures)[0][1]


@pytest.mark.slow
def test_sample_data_are_offered_once_slicer_has_started(app: Any, module: Any, slicer_with_module: Any) -> None:
    module.MedDiffFM(types.SimpleNamespace())
    assert "MedDiff-FM" not in slicer_with_module.modules.sampleDataSources
    app.slicer.app.events.startupCompleted.emit()
    sources = slicer_with_module.modules.sampleDataSources["MedDiff-FM"]
    assert [source.sampleName for source in sources] == ["Thorax CT", "Thorax CT with nodule", "Thigh MR (T1)"]
    for source in sources:
        assert Path(source.thumbnailFileName).is_file()
        assert [Path(uri).name for uri in source.uris] == source.fileNames
