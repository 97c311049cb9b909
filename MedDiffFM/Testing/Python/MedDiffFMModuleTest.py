"""Runs in a real Slicer through ctest: the module opens, explains its button and leaves heavy packages alone."""

import sys
import unittest

import slicer


class MedDiffFMModuleTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def test_moduleOpensWithoutHeavyPackages(self):
        before = {name for name in ("torch", "monai") if name in sys.modules}
        widget = slicer.modules.meddifffm.widgetRepresentation().self()
        widget.enter()
        self.assertFalse(widget.ui.runButton.enabled)
        self.assertIn("CT", widget.ui.runButton.toolTip)
        self.assertEqual({name for name in ("torch", "monai") if name in sys.modules}, before)

    def test_selectorFollowsTheScene(self):
        import numpy as np

        widget = slicer.modules.meddifffm.widgetRepresentation().self()
        widget.enter()
        node = slicer.util.addVolumeFromArray(np.zeros((8, 9, 10), dtype=np.int16), name="CT")
        widget.ui.inputVolumeSelector.setCurrentNode(node)
        self.assertIs(widget.logic.getParameterNode().inputVolume, node)
