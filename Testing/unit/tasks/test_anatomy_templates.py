"""Bodies bent from templates are whole, nobody's, where they were asked for, and still there after the prior."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from MedDiffFMLib.conditioning.regions import REGIONS
from MedDiffFMLib.conditioning.tissue import BONE, FAT, LUNG, MUSCLE, classify_tissue
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import FoundationModel, load_model
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.synthesize import bent_body as bending
from MedDiffFMLib.tasks.synthesize.bent_body import LATTICE_FINE, LATTICE_MM, bent_body, own_size, with_bone
from MedDiffFMLib.tasks.synthesize.body_layout import bent_layout, free_grid
from MedDiffFMLib.tasks.synthesize.expected_hu import BONE_DENSITIES, SPONGY_BONE, hu_table, organ_hu, tissue_table
from MedDiffFMLib.tasks.synthesize.fitted_body import Measures, fitted, framed, lungs_of, width_of
from MedDiffFMLib.tasks.synthesize.mapped_body import MappedBody
from MedDiffFMLib.tasks.synthesize.spec import Synthesize
from MedDiffFMLib.tasks.synthesize.templates import templates

SEEDS = range(3)


def test_what_ships_is_known_and_credited() -> None:
    shipped = templates()
    assert shipped and {region for t in shipped for region in t.regions} <= set(REGIONS)
    for template in shipped:
        codes, edges = template.codes()
        assert "CC BY" in template.credit or "public domain" in template.credit or "Apache" in template.credit
        assert edges == pytest.approx((2.5,) * 3, rel=0.03) and codes.min() >= 1
        assert {int(code) for code in np.unique(codes)} <= set(template.hu)
        assert template.hu[1] < -900 and -130 < template.hu[FAT] < -80 and 20 < template.hu[MUSCLE] < 80
    assert sum(template.file.stat().st_size for template in shipped) < 2e6


@pytest.mark.slow
@pytest.mark.parametrize("region", REGIONS)
def test_nothing_folds_and_the_body_lies_inside_its_box(region: str) -> None:
    for seed in SEEDS:
        body = bent_body(region, None, seed)
        assert body is not None
        step = LATTICE_MM / LATTICE_FINE
        slopes = np.stack([np.stack(np.gradient(part, step)) for part in body.field]).transpose(2, 3, 4, 0, 1)
        assert np.linalg.det(np.eye(3) + slopes).min() > 0.1
        tissue = body.tissue(free_grid(own_size(body, region), 6.0))
        sides = np.concatenate([tissue[:, [0, -1]].ravel(), tissue[:, :, [0, -1]].ravel()])
        assert (tissue > 1).mean() > 0.3 and (sides > 1).mean() < 0.12


@pytest.mark.slow
def test_a_seed_is_a_body_at_every_spacing_and_another_seed_another() -> None:
    size = (380.0, 280.0, 280.0)
    one, other = bent_body("chest", size, 5), bent_body("chest", size, 6)
    assert one is not None and other is not None
    fine, coarse = one.expected(free_grid(size, 4.0)), one.expected(free_grid(size, 20.0))
    blocks = fine.reshape(14, 5, 14, 5, 19, 5)[:, 2, :, 2, :, 2]
    assert np.abs(blocks - coarse).mean() < 5  # the same points
    assert np.array_equal(fine, bent_body("chest", size, 5).expected(free_grid(size, 4.0)))  # type: ignore[union-attr]
    assert (one.tissue(free_grid(size, 4.0)) != other.tissue(free_grid(size, 4.0))).mean() > 0.05


def test_a_box_decides_how_large_the_body_is() -> None:
    small, large = (bent_body("chest", (size,) * 3, 1) for size in (260.0, 380.0))
    assert small is not None and large is not None and small.edges[2] < large.edges[2]
    assert bent_body("chest", (900.0,) * 3, 1) is None and bent_body("none", None, 1) is None


def test_factors_meet_a_width_and_the_lungs_exactly() -> None:
    codes = np.ones((40, 60, 90), np.uint8)
    codes[:, 10:50, 5:85] = MUSCLE
    codes[5:35, 15:45, 10:80] = LUNG
    edges = np.array([5.0, 4.0, 4.0])
    assert width_of(codes, edges) == 320 and lungs_of(codes, edges) == pytest.approx(30 * 30 * 70 * 0.08)
    vary = np.array([1.1, 0.95, 1.05])
    for asked in (Measures(400), Measures(None, 4000), Measures(280, 6000)):
        scale = fitted(codes, edges, asked, vary)
        if asked.width is not None:
            assert width_of(codes, edges * scale) == pytest.approx(asked.width)
        if asked.lungs is not None:
            assert lungs_of(codes, edges * scale) == pytest.approx(asked.lungs)
        if asked.width is None:
            assert scale / vary == pytest.approx([(scale / vary)[0]] * 3)  # proportions stay
    assert framed(codes, edges)[:, [0, -1]].max() == 1 and framed(codes, edges)[..., [0, -1]].max() == 1
    assert (framed(codes, edges) > 1).sum() == (codes > 1).sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("region", "asked", "contrast"),
    [("chest", Measures(340), True), ("abdomen", Measures(420), None), ("chest", Measures(None, 5500), None),
     ("chest", Measures(360, 4000), True)],
)  # fmt: skip
def test_a_body_is_as_wide_and_has_the_lungs_that_are_asked_for(
    region: str, asked: Measures, contrast: bool | None
) -> None:
    """Within what counts as met, with the body whole in the field of view, whatever the seed."""
    for seed in SEEDS:
        body = bent_body(region, None, seed, contrast, asked)
        assert body is not None and body.template.contrast >= bool(contrast)
        tissue = body.tissue(free_grid(own_size(body, region), 5.0))
        sides = (tissue[:, 0], tissue[:, -1], tissue[:, :, 0], tissue[:, :, -1])
        assert max(float((side > 1).mean()) for side in sides) < 0.02
        if asked.width is not None:
            assert width_of(tissue, np.full(3, 5.0)) == pytest.approx(asked.width, rel=0.1)
        if asked.lungs is not None:
            assert lungs_of(tissue, np.full(3, 5.0)) == pytest.approx(asked.lungs, rel=0.12)


@pytest.mark.slow
def test_contrast_agent_is_as_asked_for() -> None:
    for seed in SEEDS:
        filled, native = (bent_body("abdomen", None, seed, contrast) for contrast in (True, False))
        assert filled is not None and native is not None and filled.template.contrast
        assert filled.hu[6] >= 150 and (native.hu[6] < 80 or not native.template.contrast)


def test_bone_that_is_asked_for_is_bone_in_the_image() -> None:
    """Bright shells around marrow, beside vessels as dense: a rule that sees the HU alone finds spine and ribs."""
    body = bent_body("abdomen", None, 0)
    assert body is not None and body.template.contrast
    grid = free_grid(own_size(body, "abdomen"), 3.0)
    asked = body.tissue(grid) == BONE
    found = classify_tissue(body.expected(grid).astype(np.int16), (3.0,) * 3) == BONE
    assert 2 * (asked & found).sum() / (asked.sum() + found.sum()) > 0.75


def test_bone_that_a_prior_smoothed_comes_back_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = np.abs(np.arange(40) - 20.0)
    tissue = np.broadcast_to(np.where(depth < 4, BONE, MUSCLE), (40, 40, 40)).astype(np.uint8)
    given = np.where(tissue == BONE, np.where(depth > 2, 600.0, 200.0), 50.0).astype(np.float32)
    made = ndimage.gaussian_filter(given, 2) + np.random.default_rng(0).normal(0, 20, given.shape).astype(np.float32)
    result = with_bone(made, given, tissue, (3.0,) * 3)
    bone, far = tissue == BONE, np.broadcast_to(depth > 9, given.shape)
    assert np.abs(result - given)[bone].mean() < 0.2 * np.abs(made - given)[bone].mean()
    assert np.array_equal(result[far], made[far])
    monkeypatch.setattr(bending, "_SLAB", 1000)  # what is computed in slabs has no borders
    assert np.array_equal(result, with_bone(made, given, tissue, (3.0,) * 3))


def test_bone_is_given_back_on_the_finest_voxels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second stage begins with bone of 3 mm voxels: nearly as much is found as in the image that was asked for."""
    size, spacing = (330.0, 90.0, 24.0), 1.5
    layout = bent_layout(size, spacing, "pelvis", 0)
    assert layout is not None and layout.anatomy is not None
    asked, given = layout.anatomy.tissue(layout.grid) == BONE, layout.anatomy.expected(layout.grid)
    task = Synthesize(size=size, spacing=spacing, layout="template", middle_steps=2, native_steps=2)
    grids: list[tuple[float, float, float]] = []

    def noted(made: np.ndarray, image: np.ndarray, tissue: np.ndarray, edges: tuple[float, float, float]) -> np.ndarray:
        grids.append(edges)
        return with_bone(made, image, tissue, edges)

    monkeypatch.setattr(bending, "with_bone", noted)
    run = Run(load_model("starter-ct", device="cpu"), seed=0, region="pelvis")
    made = task.run(Case(), run).volumes["synthetic"]

    def overlap(image: np.ndarray) -> float:
        found = classify_tissue(np.rint(image).astype(np.int16), (spacing,) * 3) == BONE
        return float(2 * (asked & found).sum() / (asked.sum() + found.sum()))

    assert [round(edges[0], 1) for edges in grids] == [3.0, 1.5]
    assert asked.mean() > 0.02 and overlap(given) > 0.6
    assert overlap(made) > overlap(given) - 0.03


def test_every_code_has_a_density_and_a_tissue_that_agree() -> None:
    hu, tissue = hu_table(), tissue_table()
    assert hu[SPONGY_BONE] > 100 and tissue[SPONGY_BONE] == BONE
    assert all(tissue[list(BONE_DENSITIES)] == BONE) and all(np.diff(hu[list(BONE_DENSITIES)]) > 0)
    assert organ_hu("liver") > organ_hu("gallbladder") > organ_hu("colon") > organ_hu("lung_upper_lobe_left")
    assert all(hu[tissue == LUNG] < -200) and all(hu[tissue == 7] > 150)
    assert set(tissue[1:].tolist()) == set(range(1, 8))


def test_an_organ_map_is_expected_with_its_organs_and_fat_under_the_skin() -> None:
    labels = np.zeros((20, 60, 60), np.uint8)
    labels[:, 6:-6, 6:-6] = 118
    labels[:, 25:35, 20:30], labels[:, 25:35, 36:46] = 5, 10
    grid = free_grid((180.0, 180.0, 60.0), 3.0)
    body = MappedBody(Volume(labels, grid.ijk_to_ras, "mask"))
    expected, tissue = body.expected(grid), body.tissue(grid)
    assert expected[10, 30, 25] == pytest.approx(organ_hu("liver"), abs=3) and tissue[10, 30, 25] == MUSCLE
    assert expected[10, 30, 41] == pytest.approx(-860, abs=3) and tissue[10, 30, 41] == LUNG
    assert tissue[10, 8, 30] == FAT and tissue[0, 15, 30] == MUSCLE and expected[10, 2, 2] == -1000


@pytest.fixture(scope="module")
def prior() -> FoundationModel:
    return load_model("starter-ct", device="cpu")


@pytest.mark.slow
def test_the_prior_keeps_the_anatomy(prior: FoundationModel) -> None:
    """Lungs and soft tissue of the CT that was made overlap (Dice) with those that were asked for."""
    size, spacing = (380.0, 280.0, 200.0), 5.0
    quick = Synthesize(size, spacing, native_steps=2)
    result = quick.run(Case(), Run(prior, seed=1))
    body = bent_body("chest", size, 1)
    assert body is not None and result.facts["anatomy"]["template"] == body.template.name
    asked = body.tissue(free_grid(size, spacing))
    made = classify_tissue(result.volumes["synthetic"], (spacing,) * 3)
    for tissue, least in ((LUNG, 0.9), (MUSCLE, 0.75)):
        one, other = asked == tissue, made == tissue
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > least
    assert np.array_equal(result.volumes["synthetic"], quick.run(Case(), Run(prior, seed=1)).volumes["synthetic"])


def test_a_box_that_no_template_fills_is_refused_where_one_is_asked_for(prior: FoundationModel) -> None:
    with pytest.raises(InputError, match="No anatomy template shows the region head-neck in a box of this") as caught:
        Synthesize((300.0,) * 3, layout="template").run(Case(), Run(prior, region="head-neck"))
    assert "--layout network" in caught.value.remedy


def test_what_the_networks_invented_for_want_of_a_template_is_told_apart(prior: FoundationModel) -> None:
    """A piece that is too small for a body is none."""
    large, small = (Synthesize((edge,) * 3, edge / 16, whole_steps=1, native_steps=1) for edge in (300.0, 96.0))
    (told,) = large.run(Case(), Run(prior, region="head-neck")).warnings
    assert "not fit to show" in told
    assert not small.run(Case(), Run(prior, region="head-neck")).warnings


def test_a_neck_has_shoulders_lungs_and_spine_and_says_that_it_lacks_contrast_agent() -> None:
    layout = bent_layout(None, 4.0, "head-neck", 0, contrast=True)
    assert layout is not None and layout.anatomy is not None and "contrast agent" in layout.warnings[0]
    tissue = classify_tissue(np.rint(layout.anatomy.expected(layout.grid)).astype(np.int16), (4.0,) * 3)
    half = len(tissue) // 2
    shoulders, neck = ((tissue[part] > 1).any(1).sum(1).max() * 4.0 for part in (slice(half), slice(-4, None)))
    assert shoulders > 400 and neck < 250
    assert (tissue[:half] == LUNG).mean() > 0.05 and not (tissue[-8:] == LUNG).mean() > 0.005
    assert all(ndimage.label(plane == BONE)[1] and (plane == BONE).sum() > 20 for plane in tissue)
