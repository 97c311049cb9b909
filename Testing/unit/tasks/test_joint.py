"""Prompts and joint results of synthesis on a tiny model: given modalities stay bit for bit, what is made agrees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

import MedDiffFMLib as mdf
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.inference.engine import MemoryLevel
from MedDiffFMLib.models.checkpoint import FoundationModel, build_denoiser, load_model, save_model
from MedDiffFMLib.multimodal import routes
from MedDiffFMLib.networks.unet import NetworkConfig
from MedDiffFMLib.tasks.base import Case, Run, Task, TaskResult
from MedDiffFMLib.tasks.inputs import Inputs
from MedDiffFMLib.tasks.output_kinds import Output, OutputKind
from MedDiffFMLib.tasks.registry import TASKS
from MedDiffFMLib.tasks.synthesize.spec import Synthesize
from MedDiffFMLib.tasks.synthesize.wishes import Wishes, acquired, met, understand

SUBSETS = [subset for size in range(4) for subset in combinations(("ct", "mr", "xray"), size)]
FAST = {"size": (90.0, 66.0, 66.0), "spacing": 3.0, "whole_steps": 2, "native_steps": 1, "companion": "none"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FoundationModel:
    config = {
        "network": NetworkConfig(channels=(8, 32), attention=(False, False)).as_dict(), "denoiser": "edm", "window": 24,
    }  # fmt: skip
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save_model(path, build_denoiser(config).state_dict(), config)
    model = load_model(str(path), device="cpu", precision="float32")
    model.engine.memory_level = MemoryLevel(model.engine.device, 2, 24)
    return model


@pytest.fixture(scope="module")
def given() -> dict[str, Volume]:
    """A child's trunk with lungs as CT, stored head first and flipped; a T1-like MR and an X-ray of it."""
    k, j, i = (np.indices((24, 36, 48)).T - np.array([11.5, 17.5, 23.5])).T * 3.0
    trunk = (i / 65) ** 2 + (j / 47) ** 2 < 1
    lungs = trunk & (((np.abs(i) - 30) / 22) ** 2 + (j / 30) ** 2 < 1)
    voxels = np.where(trunk, 30, -1000).astype(np.int16)
    voxels[trunk & ((i / 59) ** 2 + (j / 42) ** 2 > 1)] = -100
    voxels[lungs] = -820
    matrix = np.diag([3.0, -3.0, -3.0, 1.0])
    matrix[:3, 3] = -matrix[:3, :3] @ [23.5, 17.5, 11.5]
    ct = Volume(voxels, matrix)
    signal = np.select([lungs, voxels == -100, trunk], [60, 1000, 450], 5).astype(np.int16)
    signal += np.random.default_rng(0).integers(0, 12, signal.shape).astype(np.int16)
    xray = mdf.radiograph(ct, pixels=64).volumes["radiograph"]
    return {"ct": ct, "mr": Volume(signal, matrix, "MR"), "xray": xray}


def make(model: FoundationModel, scans: dict[str, Volume], prompt: str | None, **more: object) -> TaskResult:
    texts = {} if prompt is None else {"prompt": prompt}
    return Synthesize(**{**FAST, **more}).run(Case(scans=scans, texts=texts), Run(model))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("prompt", [None, "chest CT with contrast"], ids=["", "text"])
@pytest.mark.parametrize("subset", SUBSETS, ids=lambda subset: "+".join(subset) or "nothing")
def test_any_subset_of_any_subset(
    model: FoundationModel, given: dict[str, Volume], subset: tuple[str, ...], prompt: str | None
) -> None:
    """All sixteen: everything is there, and what was given is the same to the last bit, or it says why not."""
    scans = {name: given[name] for name in subset}
    if {"mr", "xray"} == set(subset):
        with pytest.raises(InputError, match="mr and xray together"):
            make(model, scans, prompt, make="ct,mr,xray,text")
        return
    result = make(model, scans, prompt, make="ct,mr,xray,text")
    assert set(result.volumes) == {"synthetic", "mr", "xray"}
    assert "text" in result.texts
    for name in subset:
        output = "synthetic" if name == "ct" else name
        assert np.array_equal(result.volumes[output], given[name].voxels)
        assert np.array_equal(result.ijk_to_ras[output], given[name].ijk_to_ras)
    assert ("asked" in result.tables) == (prompt is not None)


@pytest.mark.slow
def test_xray_of_a_joint_set_is_that_of_its_ct(model: FoundationModel) -> None:
    result = make(model, {}, None, make="ct,xray", views="ap,lat")
    ct = Volume(result.volumes["synthetic"], result.ijk_to_ras["synthetic"])
    again = mdf.radiograph(ct, views="ap,lat").volumes
    assert np.array_equal(result.volumes["xray_lat"], again["radiograph_lat"].voxels)
    assert set(result.facts["views"]) == {"xray", "xray_lat"}


@dataclass(frozen=True)
class ToyPet(Task):
    """Uptake where a CT is dense."""

    name, title, sentence = "toy_pet", "Toy", "Toy."
    inputs = Inputs()
    outputs = (Output("uptake", OutputKind.VALUES),)
    needs_model = False

    def run(self, case: Case, run: Run) -> TaskResult:
        return TaskResult({"uptake": np.maximum(case.scan.voxels, 0).astype(np.float32)})


def test_a_row_adds_a_modality(
    model: FoundationModel, given: dict[str, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "toy_pet", ToyPet)
    monkeypatch.setattr(routes, "ROUTES", (*routes.ROUTES, routes.Route("pet", "ct", "toy_pet", "uptake")))
    result = make(model, {"ct": given["ct"]}, None, make="ct,pet")
    assert np.array_equal(result.volumes["pet"], np.maximum(given["ct"].voxels, 0))
    assert result.facts["made"] == ["pet"]


def test_ct_alone_is_what_it_was(model: FoundationModel) -> None:
    from MedDiffFMLib.tasks.synthesize.recipe import make_ct

    task = Synthesize(**FAST)  # type: ignore[arg-type]
    plain = task.run(Case(), Run(model)).volumes["synthetic"]
    assert np.array_equal(plain, make_ct(task, Case(), Run(model), Wishes()).volumes["synthetic"])


def test_prompt_decides_region_slices_and_noise(model: FoundationModel) -> None:
    result = make(model, {}, "abdomen, 12 mm slices, noise of 40 HU, a nodule of 10 mm")
    assert result.facts["region"] == "abdomen"
    assert np.linalg.norm(result.ijk_to_ras["synthetic"][:3, 2]) == pytest.approx(12)
    rows = {(row["fact"], row["value"]): row for row in result.tables["asked"]}
    assert rows["slice spacing", "spacing"]["met"] == "yes"
    assert rows["nodule candidate", "size"]["steered"] == "no"
    assert any("nodule candidate" in warning for warning in result.warnings)


def test_noise_is_brought_to_the_level_asked_for() -> None:
    from MedDiffFMLib.imaging.grid import Grid
    from MedDiffFMLib.preprocessing.noise_estimate import estimate_noise

    soft = np.full((16, 64, 64), 40.0)
    noisy, _ = acquired(soft, Grid((16, 64, 64), np.eye(4)), understand("noise of 30 HU"), np.random.default_rng(0))
    found = estimate_noise(noisy.astype(np.float32))
    assert found == pytest.approx(30, rel=0.15)


def test_slices_are_means_of_voxels() -> None:
    from MedDiffFMLib.imaging.grid import Grid

    ramp = np.arange(24.0)[:, None, None] * np.ones((1, 4, 5))
    thick, grid = acquired(ramp, Grid(ramp.shape, np.eye(4)), understand("3 mm slices"), np.random.default_rng(0))  # type: ignore[arg-type]
    assert thick[:, 0, 0].tolist() == list(range(1, 24, 3))
    assert grid.ijk_to_ras[2].tolist() == [0, 0, 3, 1]


def test_asked_and_measured_are_compared() -> None:
    from MedDiffFMLib.multimodal.facts.fact import Evidence, Fact, Statement

    wishes = understand("chest with lungs of 4 l")
    here = Evidence((0, 0, 0))
    facts = [
        Fact(Statement("region", {"region": "chest"}), 1.0, here),
        Fact(Statement("lungs", {"volume": 3100}), 1.0, here),
    ]
    rows = {row["fact"]: row["met"] for row in met(wishes, facts)}
    assert rows == {"region": "yes", "lung volume": "no"}


@pytest.mark.parametrize("prompt", ["", " ... "])
def test_an_empty_prompt_is_refused(model: FoundationModel, prompt: str) -> None:
    with pytest.raises(InputError, match="The prompt says nothing"):
        make(model, {}, prompt)


def test_command_line_writes_what_was_made(model: FoundationModel, tmp_path: Path, given: dict[str, Volume]) -> None:
    from MedDiffFMLib.cli import main

    mdf.write_volume(given["ct"], tmp_path / "trunk.nrrd")
    words = [
        "synthesize",
        "--ct",
        str(tmp_path / "trunk.nrrd"),
        "--make",
        "xray,text",
        "-o",
        str(tmp_path / "made.nrrd"),
    ]
    assert main([*words, "--device", "cpu"]) == 0
    assert mdf.read_volume(tmp_path / "made_xray.nrrd", "XR").beam_source is not None
    assert "Measured in this CT" in (tmp_path / "made_text.txt").read_text()
