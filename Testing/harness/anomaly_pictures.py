"""Pictures of the anomaly view, the training and the set-up panel for the documentation.

meddifffm anomaly Resources/SampleData/thorax_lidc0001.nrrd -o RESULT
meddifffm finetune --task super-resolution --data DATASET -o RUN
python -m Testing.harness.anomaly_pictures RESULT DATASET RUN Resources/Screenshots
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import application, pictures

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "Resources" / "SampleData" / "thorax_lidc0001.nrrd"
THRESHOLD = 4.0


def main(result: Path, dataset: Path, run: Path, folder: Path) -> None:
    """Write all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    app = application.start(Path(tempfile.mkdtemp()))
    module = app.load_module()
    app.slicer.packaging.pip_check = lambda requirement: True
    three_d = pictures.ThreeDView((640, 640))
    slices = {"axial": pictures.SliceView("Red", 512), "coronal": pictures.SliceView("Green", 512)}
    widget = app.open_widget(module)
    try:
        show(app, widget, result)
        only(widget, "resultCollapsibleButton")
        app.picture(widget, folder / "panel-anomaly.png")
        for name, view in slices.items():
            view.picture(folder / f"anomaly-{name}.png")
        three_d.picture(folder / "anomaly-3d.png")
        only(widget, "setupCollapsibleButton")
        app.picture(widget, folder / "panel-setup.png")
        widget.trainingPanel.ui.datasetPathLineEdit.currentPath = str(dataset)
        widget.trainingPanel.ui.runPathLineEdit.currentPath = str(run)
        widget.trainingPanel.enter()
        only(widget, "trainCollapsibleButton")
        app.picture(widget, folder / "panel-training.png")
    finally:
        widget.cleanup()
        three_d.close()
        for view in slices.values():
            view.close()


def only(widget: Any, name: str) -> None:
    """Unfold one section."""
    for section in ("input", "task", "result", "train", "setup", "log"):
        getattr(widget.ui, f"{section}CollapsibleButton").collapsed = f"{section}CollapsibleButton" != name


def show(app: Any, widget: Any, result: Path) -> None:
    """The sample CT with the map that the command line made of it, the nodule chosen."""
    from MedDiffFMGui.finishedRun import FinishedRun
    from MedDiffFMGui.volumeNodes import addResultNode

    from MedDiffFMLib.io import read_volume

    sample = read_volume(SAMPLE)
    ct = app.slicer.util.addVolumeFromArray(sample.voxels, sample.ijk_to_ras, "thorax_lidc0001")
    ct.GetDisplayNode().SetAutoWindowLevel(False)
    ct.GetDisplayNode().SetWindowLevel(1400, -500)
    app.slicer.util.setSliceViewerLayers(background=ct)
    app.slicer.app.layoutManager().resetSliceViews()
    base = "thorax_lidc0001_anomaly"
    files = {"anomaly": result / f"{base}.nrrd"}
    files |= {name: result / f"{base}_{name}.nrrd" for name in ("healthy", "uncertainty")}
    volumes = {
        name: addResultNode(read_volume(path).voxels, ct, f"thorax_lidc0001 {name}", name == "healthy")
        for name, path in files.items()
    }
    report = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "report")
    settings = {"settings": {"parameters": {"threshold": THRESHOLD, "minimum_volume": 100.0}}}
    widget.resultPanel.show(FinishedRun("anomaly", ct, volumes, settings, report))
    app.wait(lambda: "above" in widget.anomalyView.ui.findingsLabel.text)
    nodule = read_volume(SAMPLE.with_name("thorax_lidc0001_mask.nrrd"), modality="mask").voxels > 0
    centre = sample.ijk_to_ras @ [*np.argwhere(nodule).mean(axis=0)[::-1], 1]
    rows = widget.anomalyView.nodes.rows()
    distances = [np.linalg.norm(np.subtract([r["r_mm"], r["a_mm"], r["s_mm"]], centre[:3])) for r in rows]
    widget.anomalyView.ui.findingsTableView.selectRow(int(np.argmin(distances)))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
