"""Synthesis keeps its promises about geometry, seeds and conditions, whatever the weights are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedDiffFMLib.conditioning.regions import NULL_REGION, REGIONS
from MedDiffFMLib.core.errors import Cancelled, InputError, ModelError
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.imaging.grid import Grid, same_box
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.inference.engine import Engine, MemoryLevel
from MedDiffFMLib.models.checkpoint import FoundationModel, build_denoiser, load_model, save_model
from MedDiffFMLib.networks.unet import NetworkConfig
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.parameters import from_dict
from MedDiffFMLib.tasks.synthesize.body_layout import anatomy_layout, free_grid, free_layout
from MedDiffFMLib.tasks.synthesize.cascade import handover_sigma, plan_grids, plan_stages, upsample
from MedDiffFMLib.tasks.synthesize.spec import Synthesize

WINDOW = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FoundationModel:
    """Windows of 24 voxels, so that small volumes have several stages.

    A fresh network ends its blocks in zeros, with which it would not hear of the region.
    """
    network = NetworkConfig(channels=(8, 32), attention=(False, False))
    config = {"network": network.as_dict(), "denoiser": "edm", "window": WINDOW}
    torch.manual_seed(0)
    state = build_denoiser(config).state_dict()
    for weight in state.values():
        if not weight.any():
            weight.normal_(0, 0.05)
    path = tmp_path_factory.mktemp("models") / "awake.safetensors"
    save_model(path, state, config)
    model = load_model(str(path), device="cpu", precision="float32")
    model.engine.memory_level = MemoryLevel(model.engine.device, 2, WINDOW)
    return model


FAST = Synthesize((60.0, 48.0, 54.0), 1.5, whole_steps=3, native_steps=2)
LONG = Synthesize((70.0, 24.0, 24.0), 1.0, whole_steps=20, middle_steps=2, native_steps=2)


def labels(shape: tuple[int, int, int] = (20, 32, 24), matrix: np.ndarray | None = None) -> Volume:
    """A body (118) with an organ (5) in it, flipped, thick slices, far from 0; the body leaves a margin."""
    voxels = np.zeros(shape, np.uint8)
    voxels[:, 4:-6, 3:-3] = 118
    voxels[5:12, 10:18, 8:14] = 5
    default = np.array([[3.0, 0, 0, -40], [0, -3.0, 0, 75], [0, 0, 5.0, -300], [0, 0, 0, 1]])
    return Volume(voxels, default if matrix is None else matrix, "mask")


# Geometry


@pytest.mark.slow
def test_result_is_upright_around_zero_in_whole_hounsfield(model: FoundationModel) -> None:
    result = FAST.run(Case(), Run(model))
    voxels, matrix = result.volumes["synthetic"], result.ijk_to_ras["synthetic"]
    assert voxels.shape == (36, 32, 40) and voxels.dtype == np.int16
    assert matrix is not None and np.array_equal(np.diag(matrix), [-1.5, -1.5, 1.5, 1])
    assert np.allclose(matrix @ [19.5, 15.5, 17.5, 1], [0, 0, 0, 1])
    assert voxels.min() >= -1000 and voxels.max() <= 1000 and voxels.std() > 10
    assert result.facts["size_mm"] == [60, 48, 54] and result.facts["region"] == "chest"
    assert result.facts["network_evaluations"] == sum(stage["evaluations"] for stage in result.facts["stages"])


def test_anatomy_map_gives_its_grid(model: FoundationModel) -> None:
    given = labels()
    result = Synthesize(whole_steps=2, middle_steps=1, native_steps=1).run(Case(given), Run(model))
    assert result.volumes["synthetic"].shape == given.voxels.shape
    assert np.array_equal(result.ijk_to_ras["synthetic"], given.ijk_to_ras)


def test_flipped_map_gives_the_flipped_picture(model: FoundationModel) -> None:
    """The patient counts, not the order in which the file stores the voxels."""
    given, quick = labels(), Synthesize(whole_steps=2, middle_steps=1, native_steps=1)
    matrix = given.ijk_to_ras @ np.diag([-1.0, 1, -1, 1])
    matrix[:3, 3] = (given.ijk_to_ras @ [23, 0, 19, 1])[:3]
    flipped = Volume(given.voxels[::-1, :, ::-1].copy(), matrix, "mask")
    one, other = (quick.run(Case(v), Run(model, seed=3)).volumes["synthetic"] for v in (given, flipped))
    assert np.array_equal(one, other[::-1, :, ::-1])


def test_grids_cover_the_same_box_and_follow_the_octaves() -> None:
    finest = free_grid((384.0, 384.0, 384.0), 1.5)
    grids = plan_grids(finest)
    assert [grid.shape for grid in grids] == [(64,) * 3, (128,) * 3, (256,) * 3]
    assert [grid.spacing[0] for grid in grids] == pytest.approx([6, 3, 1.5])
    corner = np.array([-0.5, -0.5, -0.5, 1])
    for grid in grids:
        assert np.allclose(grid.ijk_to_ras @ corner, finest.ijk_to_ras @ corner)
        assert np.array(grid.shape[::-1]) * grid.spacing == pytest.approx([384] * 3)


@pytest.mark.parametrize(
    ("size", "spacing", "expected"),
    [
        ((96.0, 96.0, 96.0), 1.5, [1.5]),  # one window
        ((300.0, 300.0, 300.0), 1.5, [300 / 64, 3.0, 1.5]),
        ((300.0, 300.0, 300.0), 3.0, [300 / 64, 3.0]),
        ((300.0, 300.0, 300.0), 0.75, [300 / 64, 3.0, 1.5, 0.75]),
        ((500.0, 500.0, 1700.0), 1.5, [1700 / 64, 3.0, 1.5]),  # no grid in between that training never saw
    ],
)
def test_stages_have_spacings_that_training_knew(
    size: tuple[float, float, float], spacing: float, expected: list[float]
) -> None:
    grids = plan_grids(free_grid(size, spacing))
    assert [max(grid.spacing) for grid in grids] == pytest.approx(expected, rel=0.01)


def test_thick_slices_are_never_thinner_in_between() -> None:
    thick = Grid((60, 512, 512), np.diag([-0.8, -0.8, 5.0, 1]))
    grids = plan_grids(thick)
    assert [grid.shape for grid in grids] == [(60, 64, 64), (60, 128, 128), (60, 256, 256), (60, 512, 512)]


# Handing over


def test_handover_noise_follows_the_spectrum() -> None:
    fine = free_grid((384.0,) * 3, 1.5)
    half, quarter = same_box(fine, (128,) * 3), same_box(fine, (64,) * 3)
    assert handover_sigma(quarter, fine) == pytest.approx(4 * handover_sigma(half, fine))
    assert handover_sigma(quarter, half) == pytest.approx(2**0.5 * handover_sigma(half, fine))
    assert 0.1 < handover_sigma(half, fine) < 0.4
    steps = {"whole_steps": 40, "middle_steps": 12, "native_steps": 6}
    stages = plan_stages(fine, 64, Synthesize(detail=2.0, **steps))
    assert stages[2].sigma == pytest.approx(2 * handover_sigma(half, fine))
    assert [stage.steps for stage in stages] == [40, 12, 6]
    assert [stage.evaluations for stage in stages] == [40, 12, 7]


def test_upsampling_keeps_place_and_structure() -> None:
    """A wave of six coarse voxels keeps place and height; linear interpolation takes 9 % of it."""
    at = lambda n: (np.arange(n) + 0.5) / n  # noqa: E731
    wave = lambda n: np.sin(2 * np.pi * 8 * at(n))[:, None, None] * np.ones((1, 6 * n // 48, 8 * n // 48))  # noqa: E731
    fine = upsample(torch.from_numpy(wave(48).astype(np.float32))[None, None], (96, 12, 16))[0, 0].numpy()
    assert np.abs(fine - wave(96))[4:-4].max() < 0.02


# Conditions


def test_body_fills_the_box_or_follows_the_labels() -> None:
    layout = free_layout((300.0, 300.0, 300.0), 3.0, "pelvis")
    condition = layout.condition(layout.grid)
    assert condition.region == REGIONS.index("pelvis") and condition.anatomy is None and condition.coordinates
    k, j, i = condition.coordinates
    assert k[0] == pytest.approx(-0.99) and k[-1] == pytest.approx(0.99)
    assert j[0] < -1 and i[-1] > 1

    layout = anatomy_layout(labels(), labels().voxels, "none")
    condition = layout.condition(layout.grid)
    assert condition.region == NULL_REGION and condition.anatomy is not None and condition.coordinates
    k, j, i = condition.coordinates
    body = condition.anatomy.numpy() > 0
    assert body.any((0, 1)).tolist() == [bool(-1 < c < 1) for c in i]
    assert body.any((0, 2)).tolist() == [bool(-1 < c < 1) for c in j]
    assert set(np.unique(condition.anatomy)) == {0, 5, 118}


def test_coarse_grids_carry_the_labels_of_the_same_place() -> None:
    layout = anatomy_layout(labels(), labels().voxels, None)
    coarse = same_box(layout.grid, (10, 16, 12))
    anatomy = layout.condition(coarse).anatomy
    assert anatomy is not None
    share = [float((layout.condition(grid).anatomy == 5).float().mean()) for grid in (layout.grid, coarse)]
    assert share[1] == pytest.approx(share[0], rel=0.3)


def test_binary_map_is_taken_as_the_body() -> None:
    binary = (labels().voxels > 0).astype(np.uint8)
    layout = anatomy_layout(labels(), binary, "chest")
    assert layout.target is not None and set(np.unique(layout.target.voxels)) == {0, 118}
    assert "taken as the body" in layout.warnings[0]
    spleen = np.where(labels().voxels == 5, 1, 0).astype(np.uint8)
    spleen[6:] = 0
    assert not anatomy_layout(labels(), spleen, "chest").warnings


@pytest.mark.slow
def test_region_anatomy_and_guidance_change_the_result(model: FoundationModel) -> None:
    quick = {"whole_steps": 2, "middle_steps": 1, "native_steps": 1}
    given = labels()
    plain = Synthesize(**quick).run(Case(given), Run(model)).volumes["synthetic"]
    other = {
        "region": Synthesize(**quick).run(Case(given), Run(model, region="abdomen")),
        "anatomy": Synthesize(**quick).run(Case(given, anatomy=np.roll(given.voxels, 5, 0)), Run(model)),
        "guidance": Synthesize(guidance=3.0, **quick).run(Case(given), Run(model)),
    }
    for name, result in other.items():
        assert not np.array_equal(result.volumes["synthetic"], plain), name


def test_without_guidance_region_and_anatomy_do_not_count(model: FoundationModel) -> None:
    free = Synthesize((60.0,) * 3, 2.5, guidance=0.0, whole_steps=2)
    one, other = (free.run(Case(), Run(model, region=name)).volumes["synthetic"] for name in ("chest", "pelvis"))
    assert np.array_equal(one, other)


# Running


@pytest.mark.slow
def test_same_seed_same_bits_other_seed_other_body(model: FoundationModel) -> None:
    runs = [FAST.run(Case(), Run(model, seed=seed)).volumes["synthetic"] for seed in (3, 3, 4)]
    assert np.array_equal(runs[0], runs[1])
    assert np.corrcoef(runs[0].ravel(), runs[2].ravel())[0, 1] < 0.9


@pytest.mark.slow
def test_progress_is_even_and_cancel_is_heard(model: FoundationModel) -> None:
    """Fractions count windows, so that many quick steps on the coarse grid do not look like half of the work."""
    events = []
    result = LONG.run(Case(), Run(model, progress=events.append))
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)
    windows = [stage["windows"] * stage["evaluations"] for stage in result.facts["stages"]]
    coarse = [event.fraction for event in events if event.stage.startswith("inventing")]
    assert coarse[-1] == pytest.approx(windows[0] / sum(windows))
    assert len({event.stage for event in events}) == len(windows) == 3

    token = CancelToken()
    with pytest.raises(Cancelled):
        FAST.run(Case(), Run(model, cancel=token, progress=lambda event: token.cancel()))


@pytest.mark.slow
def test_memory_shortage_is_survived(model: FoundationModel, monkeypatch: pytest.MonkeyPatch) -> None:
    real, told = Engine.denoise, []

    def hungry(self: Engine, x: torch.Tensor, *rest: object) -> torch.Tensor:
        if len(x) > 1:
            raise MemoryError
        return real(self, x, *rest)  # type: ignore[arg-type]

    expected = LONG.run(Case(), Run(model)).volumes["synthetic"]
    before = model.engine.memory_level
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "denoise", hungry)
        patch.setattr(model.engine, "on_warning", told.append)
        found = LONG.run(Case(), Run(model)).volumes["synthetic"]
    assert len(told) == 1 and model.engine.memory_level.batch == 1
    model.engine.memory_level = before
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.slow
def test_a_companion_invents_the_coarse_image_and_nothing_else(
    model: FoundationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**model.config, "network": {**model.config["network"], "channels": [16, 32]}, "window": 12}
    path = tmp_path / "companion.safetensors"
    save_model(path, build_denoiser(config).state_dict(), config)
    ran, denoise = [], Engine.denoise

    def spy(self: Engine, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        ran.append(self.denoiser.network.config.channels[0])  # type: ignore[union-attr]
        return denoise(self, x, *rest)

    monkeypatch.setattr(Engine, "denoise", spy)
    result = replace(LONG, companion=str(path)).run(Case(), Run(model))
    own = ran.index(8)
    assert set(ran[:own]) == {16} and set(ran[own:]) == {8} and own >= LONG.whole_steps
    assert result.facts["companion"]["name"] == "companion"
    assert [max(stage["shape_ijk"]) for stage in result.facts["stages"]] == [12, 24, 35, 70]
    assert LONG.run(Case(), Run(model)).facts["companion"] is None


def test_a_companion_with_other_levels_is_refused(model: FoundationModel, tmp_path: Path) -> None:
    config = {**model.config, "network": {**model.config["network"], "channels": [8, 32, 32], "attention": [False] * 3}}
    path = tmp_path / "deep.safetensors"
    save_model(path, build_denoiser(config).state_dict(), config)
    with pytest.raises(ModelError, match="number of levels"):
        replace(FAST, companion=str(path)).run(Case(), Run(model))


def test_last_image_holds_no_trace_of_the_stems_pairs(model: FoundationModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is wrong by 300 HU, up and down in turns: both windows of the last evaluation cancel it."""

    def paired(self: Engine, x: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.zeros_like(x) + 0.3 * (1 - 2 * (torch.arange(x.shape[-1]) % 2))

    monkeypatch.setattr(Engine, "denoise", paired)
    voxels = LONG.run(Case(), Run(model)).volumes["synthetic"]
    assert np.abs(voxels).max() <= 1


# Refusals


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": (0.0, 300.0, 300.0)}, "size is 0.0 mm"),
        ({"size": (300.0, 300.0, 5000.0)}, "size is 5000.0 mm"),
        ({"size": (300.0, 300.0)}, "size has 2 values"),
        ({"size": ("a", 1.0, 2.0)}, "size is 'a'"),
        ({"size": (20.0, 300.0, 300.0), "spacing": 20.0}, "holds only 1 x 15 x 15 voxels"),
        ({"size": (1000.0, 1000.0, 1000.0), "spacing": 0.5}, "8000 million voxels"),
        ({"spacing": 0.0}, "spacing is 0.0 mm"),
        ({"guidance": -1.0}, "guidance is -1.0"),
        ({"native_steps": 0}, "native_steps is 0"),
    ],
)
def test_impossible_requests_are_refused_in_words(values: dict, words: str) -> None:
    with pytest.raises(InputError) as caught:
        from_dict(Synthesize, values)
    assert words in caught.value.cause and caught.value.remedy


def test_size_from_json_is_that_of_the_report() -> None:
    given = from_dict(Synthesize, {"size": [300, 300, 300], "spacing": 3})
    assert given == Synthesize((300.0, 300.0, 300.0), 3.0)


def test_maps_and_regions_that_make_no_sense_are_refused(model: FoundationModel) -> None:
    given = labels()
    with pytest.raises(InputError, match="knee"):
        FAST.run(Case(), Run(model, region="knee"))
    with pytest.raises(InputError, match="decides about size"):
        FAST.run(Case(given), Run(model))
    with pytest.raises(InputError, match="empty"):
        Synthesize().run(Case(given.with_voxels(np.zeros_like(given.voxels))), Run(model))
    with pytest.raises(InputError, match="119"):
        Synthesize().run(Case(given.with_voxels(given.voxels + 1)), Run(model))
