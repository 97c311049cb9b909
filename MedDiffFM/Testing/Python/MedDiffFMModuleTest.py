"""Runs in a real Slicer through ctest; needs no GPU, no network and neither torch nor MONAI."""

import hashlib
import sys
import tempfile
import time
import unittest
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import slicer


def openWidget():
    """The module's widget, opened."""
    widget = slicer.modules.meddifffm.widgetRepresentation().self()
    widget.enter()
    return widget


def waitFor(condition, seconds=20):
    """Turn the event loop until a condition holds: findings are listed in its course."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        slicer.app.processEvents()


class MedDiffFMModuleTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def test_moduleOpensWithoutHeavyPackages(self):
        before = {name for name in ("torch", "monai") if name in sys.modules}
        widget = openWidget()
        self.assertFalse(widget.ui.runButton.enabled)
        self.assertTrue(widget.ui.runButton.toolTip)
        self.assertEqual({name for name in ("torch", "monai") if name in sys.modules}, before)

    def test_selectorFollowsTheScene(self):
        import numpy as np

        widget = openWidget()
        node = slicer.util.addVolumeFromArray(np.zeros((8, 9, 10), dtype=np.int16), name="CT")
        widget.ui.inputVolumeSelector.setCurrentNode(node)
        self.assertIs(widget.logic.getParameterNode().inputVolume, node)

    def test_weightsAndSampleReachedThePackage(self):
        from MedDiffFMLib.models.catalogue import list_models

        openWidget()
        for entry in list_models():
            self.assertTrue(entry.path.is_file(), entry.path)
        starter = next(entry for entry in list_models() if entry.name == "starter-ct")
        self.assertEqual(hashlib.sha256(starter.path.read_bytes()).hexdigest(), starter.sha256)

    def test_sampleDataAreRegisteredWithTheirHash(self):
        from MedDiffFMGui.nodes.sampleData import CATEGORY, registerSampleData

        registerSampleData()
        sources = slicer.modules.sampleDataSources[CATEGORY]
        self.assertEqual(len(sources), 3)
        for source in sources:
            for uri, checksum in zip(source.uris, source.checksums, strict=True):
                path = Path(url2pathname(urlparse(uri).path))
                self.assertEqual(f"SHA256:{hashlib.sha256(path.read_bytes()).hexdigest()}", checksum)

    def test_anomalyMapIsShownAndDiscarded(self):
        import numpy as np
        from MedDiffFMGui.nodes.finishedRun import FinishedRun
        from MedDiffFMGui.nodes.volumeNodes import addResultNode

        widget = openWidget()
        score = np.zeros((20, 20, 20), np.float32)
        score[5:9, 5:9, 5:9] = 7
        ct = slicer.util.addVolumeFromArray((score * 40).astype(np.int16), name="CT")
        volumes = {"anomaly": addResultNode(score, ct, "CT anomaly", False)}
        report = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "CT report")
        settings = {"settings": {"parameters": {"threshold": 3.0, "minimum_volume": 0.0}}}
        widget.resultPanel.show(FinishedRun("anomaly", ct, volumes, settings, report))
        view = widget.anomalyView
        waitFor(lambda: view.nodes.table.GetTable().GetNumberOfRows() and view.nodes.node("regions"))
        self.assertEqual(view.nodes.table.GetTable().GetNumberOfRows(), 1)
        self.assertEqual(view.nodes.node("regions").GetSegmentation().GetNumberOfSegments(), 1)
        view.next()
        with tempfile.TemporaryDirectory() as folder:
            view.findings.export(f"{folder}/findings.csv")
            self.assertEqual(len(Path(folder, "findings.csv").read_text().splitlines()), 2)
        view.discard()
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), 1)

    def test_trainingSaysWhatIsMissing(self):
        widget = openWidget()
        self.assertFalse(widget.trainingPanel.ui.startTrainingButton.enabled)
        self.assertTrue(widget.trainingPanel.ui.startReasonLabel.text)
