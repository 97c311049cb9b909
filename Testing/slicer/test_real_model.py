"""From node to node with the shipped weights: real MRML, a real worker process, the real network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from Testing.harness.geometries import GEOMETRIES, orthogonal


@pytest.mark.slow
def test_denoise_from_node_to_node(app: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise in tissue becomes less, the oblique grid stays to the last bit, the original is untouched."""
    from MedDiffFMGui.volumeNodes import volumeFromNode

    generator = np.random.default_rng(3)
    k, j, i = np.mgrid[:32, :40, :44]
    inside = ((k - 15.5) / 14) ** 2 + ((j - 19.5) / 17) ** 2 + ((i - 21.5) / 19) ** 2 < 1
    voxels = np.where(inside, 40, -1000) + generator.normal(0, 40, inside.shape) * inside
    node = app.slicer.util.addVolumeFromArray(voxels.astype(np.int16), orthogonal(GEOMETRIES["oblique"]), "thorax")
    before = app.slicer.util.arrayFromVolume(node).copy()

    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: True)
    widget = app.open_widget(module)
    try:
        widget.ui.inputVolumeSelector.setCurrentNode(node)
        widget.ui.runButton.click()
        app.wait(lambda: not widget.logic.running, seconds=240)
        assert widget.ui.runStatusLabel.text.startswith("Done"), widget.ui.runStatusLabel.text
        assert "cpu" in widget.ui.modelLabel.text or "cuda" in widget.ui.modelLabel.text
        result = app.slicer.util.getNode("thorax denoised")
    finally:
        widget.cleanup()
    deep = ((k - 15.5) / 9) ** 2 + ((j - 19.5) / 12) ** 2 + ((i - 21.5) / 14) ** 2 < 1
    denoised = app.slicer.util.arrayFromVolume(result)
    assert denoised[deep].std() < 0.6 * before[deep].std()
    assert abs(denoised[deep].mean() - 40) < 15
    assert np.array_equal(volumeFromNode(result).ijk_to_ras, volumeFromNode(node).ijk_to_ras)
    assert np.array_equal(app.slicer.util.arrayFromVolume(node), before)
