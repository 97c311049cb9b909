"""The window stays usable while much changes at once; counted in draws of a view."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from Testing.harness import pictures

REGIONS = 100


@pytest.mark.slow
def test_a_hundred_regions_are_replaced_without_drawing_for_each(app: Any, module: Any) -> None:
    from MedDiffFMGui.nodes.regionSegments import replacingRegions
    from MedDiffFMGui.worker.eventLoopTasks import drained

    numbered, boxes = np.zeros((60, 100, 100), np.uint8), {}
    for number in range(1, REGIONS + 1):
        k, rest = divmod(number - 1, 25)
        j, i = divmod(rest, 5)
        boxes[number] = (slice(14 * k, 14 * k + 8), slice(19 * j, 19 * j + 8), slice(19 * i, 19 * i + 8))
        numbered[boxes[number]] = number
    regions = SimpleNamespace(numbered=numbered, boxes=boxes)
    ct = app.slicer.util.addVolumeFromArray(np.zeros(numbered.shape, np.int16), None, "ct")
    node = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    view = pictures.ThreeDView()
    try:
        for _round in range(2):  # the second time there are a hundred to take away
            view.draws = 0
            drained(replacingRegions(node, regions, ct, (0.0, 1.0, 1.0)))
            assert node.GetSegmentation().GetNumberOfSegments() == REGIONS
            assert view.draws <= 2
    finally:
        view.close()
