"""Before and after: side by side at the same place and scale, swipe, checkerboard, another result as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from Testing.slicer.test_result_state import run


def composite(app: Any, name: str = "Red") -> Any:
    return app.slicer.app.layoutManager().sliceWidget(name).mrmlSliceCompositeNode()


def foreground(app: Any) -> np.ndarray:
    return app.slicer.util.arrayFromVolume(app.slicer.mrmlScene.GetNodeByID(composite(app).GetForegroundVolumeID()))


@pytest.mark.slow
def test_side_by_side_keeps_scale_and_center_of_a_zoomed_view(app: Any, widget: Any, ct: Any) -> None:
    manager = app.slicer.app.layoutManager()
    run(app, widget, "denoise", ct)
    red = manager.sliceWidget("Red").mrmlSliceNode()
    red.SetFieldOfView(17.0, 17.0, 1.0)
    red.JumpSliceByCentering(3.0, -4.0, 5.0)
    widget.ui.sideBySideButton.click()
    app.qt.processEvents()
    for side in ("Before", "After"):
        node = manager.sliceWidget(f"MedDiffFM{side}").mrmlSliceNode()
        assert np.array_equal(
            app.slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()),
            app.slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS()),
        )
        assert node.GetFieldOfView()[0] / node.GetDimensions()[0] == pytest.approx(17.0 / red.GetDimensions()[0])
    widget.ui.sideBySideButton.click()


@pytest.mark.slow
@pytest.mark.parametrize("ct", ["plain", "oblique"], indirect=True)
def test_swipe_and_checkerboard_mix_before_and_after(app: Any, widget: Any, ct: Any) -> None:
    slicer = app.slicer
    made = run(app, widget, "denoise", ct)
    before, after = slicer.util.arrayFromVolume(ct), slicer.util.arrayFromVolume(made)
    widget.ui.compareModeComboBox.currentIndex = 1
    widget.ui.blendSlider.value = 0.25
    mixed = foreground(app)
    left_is_high = bool(slicer.util.arrayFromVTKMatrix(red_to_ras(slicer, ct))[0, 0] < 0)
    shown = slice(-round(0.25 * 28), None) if left_is_high else slice(0, round(0.25 * 28))
    assert np.array_equal(mixed[..., shown], after[..., shown])
    assert np.array_equal(mixed[..., 14], before[..., 14])  # the middle
    widget.ui.compareModeComboBox.currentIndex = 2
    mixed = foreground(app)
    assert not widget.ui.blendSlider.enabled
    assert ((mixed == before) | (mixed == after)).all()
    differ = before != after
    assert 0 < (mixed == after)[differ].mean() < 1
    widget.ui.compareModeComboBox.currentIndex = 0
    assert composite(app).GetForegroundVolumeID() == made.GetID()
    assert not [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "beside" in n.GetName()]


def red_to_ras(slicer: Any, node: Any) -> Any:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


@pytest.mark.slow
def test_two_results_of_one_ct_are_compared(app: Any, widget: Any, ct: Any) -> None:
    first = run(app, widget, "denoise", ct)
    second = run(app, widget, "denoise", ct)
    combo = widget.ui.beforeComboBox
    assert [combo.itemText(n) for n in range(combo.count)] == ["original", first.GetName()]
    combo.currentIndex = 1
    assert composite(app).GetBackgroundVolumeID() == first.GetID()
    assert composite(app).GetForegroundVolumeID() == second.GetID()
    combo.currentIndex = 0
    assert composite(app).GetBackgroundVolumeID() == ct.GetID()
