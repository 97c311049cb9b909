"""Pictures of the panel and of the views for the documentation, made with the real worker and the shipped weights.

python -m Testing.harness.screenshots FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from . import application, views

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "Resources" / "SampleData" / "thorax_lidc0001.nrrd"
NODULE = (89, 147, 148)
"""Voxel index (k, j, i) of the nodule in the sample CT."""
TASKS = ("denoise", "super_resolve", "synthesize")
SIZE = 512


def main(folder: Path) -> None:
    """Write all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    app = application.start(Path(tempfile.mkdtemp()))
    module = app.load_module()
    app.slicer.packaging.pip_check = lambda requirement: True
    widget = app.open_widget(module)
    try:
        ct = load_sample(app)
        widget.ui.inputVolumeSelector.setCurrentNode(ct)
        for task in TASKS:
            widget.taskPanel.choose(task)
            app.picture(widget, folder / f"panel-{task}.png")
        fill(app, widget, ct, folder)
    finally:
        widget.cleanup()


def load_sample(app: Any) -> Any:
    """The sample CT in the views, at the nodule."""
    from MedDiffFMLib.io import read_volume

    sample = read_volume(SAMPLE)
    ct = app.slicer.util.addVolumeFromArray(sample.voxels, sample.ijk_to_ras, "thorax_lidc0001")
    ct.GetDisplayNode().SetAutoWindowLevel(False)
    ct.GetDisplayNode().SetWindowLevel(1400, -500)
    app.slicer.util.setSliceViewerLayers(background=ct, fit=True)
    place = sample.ijk_to_ras @ [*NODULE[::-1], 1]
    app.slicer.vtkMRMLSliceNode.JumpAllSlices(app.slicer.mrmlScene, *place[:3])
    red = app.slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    red.SetFieldOfView(120, 120, 1)
    app.slicer.vtkMRMLSliceNode.JumpSliceByCentering(red, *place[:3])
    return ct


def fill(app: Any, widget: Any, ct: Any, folder: Path) -> None:
    """The nodule painted, and lung in its place."""
    from Testing.slicer.paint import paint_ball

    widget.taskPanel.choose("inpaint")
    paint_ball(app, widget, (88, 148, 151), 16.0)
    views.slice_picture("Red", folder / "fill-before.png", SIZE)
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running, seconds=600)
    app.picture(widget, folder / "panel-inpaint.png")
    widget.maskPanel.segmentation().GetDisplayNode().SetVisibility(False)
    views.slice_picture("Red", folder / "fill-after.png", SIZE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
