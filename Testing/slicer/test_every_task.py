"""Every task from node to node with a real worker and a network so small that a run takes a moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def logic(app: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: True)
    made = module.MedDiffFMLogic()
    yield made
    made.stop()


@pytest.fixture
def chest(app: Any, small_ct: Any) -> Any:
    return app.slicer.util.addVolumeFromArray(small_ct.voxels, small_ct.ijk_to_ras, "chest")


@pytest.fixture
def lesion_control(tiny_model_file: Path, tmp_path: Path) -> str:
    """File of an untrained lesion ControlNet of the tiny model."""
    from MedDiffFMLib.diffusion.controlled_denoiser import with_control
    from MedDiffFMLib.models.checkpoint import load_model
    from MedDiffFMLib.models.controlnet_file import save_control
    from MedDiffFMLib.training.finetune.registry import finetune_task

    model = load_model(str(tiny_model_file), device="cpu", precision="float32")
    branch = with_control(model.engine.denoiser, finetune_task("lesion").task().network()).control
    path = tmp_path / "lesion.safetensors"
    save_control(path, branch, task="lesion", prior={"name": model.name, "sha256": model.sha256})
    return str(path)


def array(app: Any, node: Any) -> np.ndarray:
    return app.slicer.util.arrayFromVolume(node)


def test_lesion_synthesis_and_thin_slices(
    app: Any, logic: Any, chest: Any, small_mask: Any, tiny_model_file: Path, lesion_control: str
) -> None:
    """Results lie where they belong: a mask as label map, a finer grid over the same space, a CT of no patient."""
    from MedDiffFMGui.views.facts import factsText

    slicer = app.slicer
    model = {"model": str(tiny_model_file), "device": "cpu"}
    mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lesion here")
    mask.SetReferenceImageGeometryParameterFromVolumeNode(chest)
    mask.GetSegmentation().AddEmptySegment("lesion", "lesion")
    inside = small_mask.voxels > 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(inside.astype(np.uint8), mask, "lesion", chest)

    parameters = {"control": lesion_control, "steps": 1, "kind": "calcified"}
    run = logic.run("generate_lesion", chest, mask=mask, parameters=parameters, **model)
    lesion, made = run.volumes["lesion"], array(app, run.main)
    assert lesion.IsA("vtkMRMLLabelMapVolumeNode") and np.array_equal(array(app, lesion) > 0, inside)
    assert abs(made[inside].mean() - 350) < 60
    assert run.report["synthetic"] and run.main.GetName() == "chest with lesion"
    assert run.facts["check"]["drawn"] >= 1 and "Its outline agrees with the mask by a Dice of" in factsText(run)

    run = logic.run("super_resolve", chest, parameters={"mode": "isotropic", "control": "none"}, **model)
    assert array(app, run.main).shape == tuple(2 * n for n in array(app, chest).shape)
    bounds = [[0.0] * 6, [0.0] * 6]
    chest.GetRASBounds(bounds[0])
    run.main.GetRASBounds(bounds[1])
    assert np.allclose(*bounds, atol=1e-3)

    size = {"size": [96.0, 96.0, 96.0], "spacing": 3.0, "whole_steps": 1, "middle_steps": 1, "native_steps": 1}
    run = logic.run("synthesize", chest, parameters=size, region="abdomen", **model)  # the CT has nothing to do with it
    assert run.inputNode is None and array(app, run.main).shape == (32, 32, 32)
    display = run.main.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel()) == (400, 40) and run.report["synthetic"]
