"""Segmentation: from a few outlined scans to a head, and from a head to outlines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from MedDiffFMLib.cli import main
from MedDiffFMLib.conditioning.condition import Condition
from MedDiffFMLib.core.errors import InputError, ModelError
from MedDiffFMLib.core.progress import ProgressMeter
from MedDiffFMLib.datasets.labels import label_table
from MedDiffFMLib.datasets.segments import merge_segments
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import build_denoiser, load_model, read_weights, save_model, write_weights
from MedDiffFMLib.networks.unet import NetworkConfig
from MedDiffFMLib.preprocessing.body_coordinates import UNKNOWN, BodyField
from MedDiffFMLib.segmentation import context
from MedDiffFMLib.segmentation.activations import tiles, volume_activations
from MedDiffFMLib.segmentation.context import ContextHead
from MedDiffFMLib.segmentation.features import (
    FeatureMethod,
    FeatureSegmenter,
    PointBatch,
    StoredFeatures,
    draw_points,
    strata,
)
from MedDiffFMLib.segmentation.head_file import complete_head, load_head
from MedDiffFMLib.segmentation.inputs import LabeledInput, SegmentationInput, dice, mirrored
from MedDiffFMLib.segmentation.loss import mask_loss, share_entropy
from MedDiffFMLib.segmentation.method import InferenceBudget, make_method
from MedDiffFMLib.segmentation.outline import BEST
from MedDiffFMLib.segmentation.point_head import PointHead, to_points, to_voxels
from MedDiffFMLib.segmentation.sliding_window import Window
from MedDiffFMLib.segmentation.window_dataset import WindowSamples, collate_windows
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.segment.spec import Segment
from MedDiffFMLib.training.finetune.progress_log import read_progress
from MedDiffFMLib.training.finetune.run import FinetuneResult, finetune
from Testing.unit.phantoms import body

SHAPE = (20, 28, 28)
OPTIONS = {"spacing": 2.5, "points": 1024}
RUN: dict[str, Any] = {
    "preset": "small",
    "steps": 60,
    "window": 16,
    "validate_every": 30,
    "learning_rate": 1e-2,
    "accelerator": "cpu",
    "register": False,
}
LABELS = {"1": {"name": "ball", "color": [1, 2, 3], "terminology": "T~ball"}, "4": "cube"}


def outlined(number: int, with_cube: bool = True) -> tuple[Volume, np.ndarray]:
    """A body with a bright ball, label 1, and a dark cube, label 4, somewhere in it."""
    rng = np.random.default_rng(number)
    image = body(SHAPE, 2.5)
    k, j, i = np.indices(SHAPE)
    a, b, c = rng.uniform(8, 12), rng.uniform(9, 12), rng.uniform(8, 11)
    ball = (k - a) ** 2 + (j - b) ** 2 + (i - c) ** 2 <= 10
    cube = (abs(k - 10) <= 2) & (abs(j - 18) <= 2) & (abs(i - 17) <= 2)
    voxels = image.voxels + np.where(ball, 200, 0) - np.where(cube, 250, 0)
    return image.with_voxels(voxels.astype(np.int16)), (ball + 4 * (cube & with_cube)).astype(np.uint8)


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients; the cube is not outlined in the last one though it is there."""
    folder = tmp_path_factory.mktemp("cases")
    rows = []
    for number in range(3):
        image, labels = outlined(number, with_cube=number < 2)
        write_volume(image, folder / f"c{number}.nrrd")
        write_volume(Volume(labels, image.ijk_to_ras, "mask"), folder / f"c{number}_mask.nrrd", mask=True)
        rows.append({"image": f"c{number}.nrrd", "label": f"c{number}_mask.nrrd"})
    path = folder / "list.json"
    path.write_text(json.dumps({"labels": {"0": "background", **LABELS}, "training": rows}))
    return path


@pytest.fixture(scope="module")
def trained(datalist: Path, tiny_model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    """A head, with a quarter of the steps that a context head takes as a rule."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "STEPS", 150)
        return finetune(
            datalist,
            tmp_path_factory.mktemp("runs") / "heads",
            "segmentation",
            prior=str(tiny_model_file),
            **RUN,
            options=OPTIONS,
        )


@pytest.mark.slow
def test_a_head_of_three_scans_finds_both_structures_in_a_fourth(
    trained: FinetuneResult, tiny_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained.state == "done" and trained.metric == "dice" and trained.value is not None and trained.value > 0.6
    assert any("missing in c2" in sentence for sentence in trained.warnings)
    assert any("No patient validates" in sentence for sentence in trained.warnings)
    states = [line["state"] for line in read_progress(trained.folder)]
    assert states.index("training") < states.index("validated")  # nobody waits for figures of an untrained head
    assert trained.before is None
    image, truth = outlined(9)
    write_volume(image, tmp_path / "new.nrrd")
    command = ["segment", str(tmp_path / "new.nrrd"), "-o", str(tmp_path / "out.nrrd"), "--model", str(tiny_model_file),
               "--head", str(trained.weights), "--json"]  # fmt: skip
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    temperature = report["facts"]["head"]["temperature"]
    assert temperature["source"] == "3 training patients, left out in turn"
    assert len(temperature["values"]) == 2 and all(0.2 <= value <= 20 for value in temperature["values"])
    context = report["facts"]["head"]["context"]  # kept where patients that were left out gain
    assert context is None or (context["patients"] == 3 and context["dice_gain"] > 0)
    rows = report["facts"]["labels"]
    assert [(row["value"], row["name"]) for row in rows] == [(1, "ball"), (4, "cube")]
    assert rows[0]["color"] == [1, 2, 3] and rows[0]["terminology"] == "T~ball"
    assert all(0.1 <= row["threshold"] <= 0.5 for row in rows)
    found = read_volume(tmp_path / "out.nrrd", modality="mask").voxels
    assert set(np.unique(found)) <= {0, 1, 4}
    for value in (1, 4):
        ours, real = torch.from_numpy(found == value)[None], torch.from_numpy(truth == value)[None]
        assert dice(ours, real) > 0.3  # by chance: 0.02; the features are those of random weights
    spread = read_volume(tmp_path / "out_uncertainty.nrrd", modality="mask").voxels
    assert spread.shape == found.shape and spread.min() >= 0 and 0.1 < spread.max() <= 0.5
    assert (tmp_path / "out_uncertainty_cube.nrrd").exists()
    assert main([*command, "--overwrite", "--threshold", "0.6"]) == 0
    assert {row["threshold"] for row in json.loads(capsys.readouterr().out)["facts"]["labels"]} == {0.6}
    surer = read_volume(tmp_path / "out.nrrd", modality="mask").voxels
    assert 0 < np.count_nonzero(surer) < np.count_nonzero(found)


@pytest.mark.slow
def test_a_context_head_travels_with_its_head(trained: FinetuneResult, tiny_model_file: Path, tmp_path: Path) -> None:
    """Written into the file, read with it, used, told in the facts; a file that lost a part of it is refused."""
    assert trained.weights is not None
    path = tmp_path / "head.safetensors"
    shutil.copyfile(trained.weights, path)
    torch.manual_seed(0)
    complete_head(path, temperatures=[1, 1], source="", outline=BEST, context=ContextHead(2), patients=3, gain=0.125)
    model = load_model(str(tiny_model_file), device="cpu")
    image = outlined(9)[0]
    with_context = Segment(head=str(path)).run(Case(image), Run(model))
    assert with_context.facts["head"]["context"] == {"patients": 3, "dice_gain": 0.125}
    alone = Segment(head=str(trained.weights)).run(Case(image), Run(model))
    assert (with_context.volumes["uncertainty"] != alone.volumes["uncertainty"]).any()
    weights = read_weights(path)
    kept = {name: value for name, value in weights.state.items() if name != "context.mean"}
    write_weights(path, kept, weights.metadata)
    with pytest.raises(ModelError, match="do not fit"):
        load_head(path, model)


@pytest.mark.slow
def test_a_head_of_another_prior_is_refused(trained: FinetuneResult, tmp_path: Path) -> None:
    torch.manual_seed(5)
    config = {"network": NetworkConfig(channels=(8, 32), attention=(False, False)).as_dict(), "denoiser": "edm"}
    other = tmp_path / "other.safetensors"
    save_model(other, build_denoiser(config).state_dict(), config)
    model = load_model(str(other), device="cpu")
    with pytest.raises(ModelError, match="was trained with the prior"):
        load_head(trained.weights or "", model)
    with pytest.raises(ModelError, match="no segmentation head for the model"):
        Segment().run(Case(outlined(0)[0]), Run(model))
    with pytest.raises(ModelError, match="holds no segmentation head"):
        load_head(other, model)


@pytest.mark.slow
def test_same_command_finishes_at_once_and_other_methods_are_refused(
    trained: FinetuneResult, datalist: Path, tiny_model_file: Path
) -> None:
    again: dict[str, Any] = {**RUN, "prior": str(tiny_model_file)}
    result = finetune(datalist, trained.folder, "segmentation", **again, options=OPTIONS)
    assert result.steps == trained.steps and result.value == trained.value
    for options in ({**OPTIONS, "dropout": 0.3}, {"method": "magic"}, {"heads": 3}, {"spacing": 0.0}):
        with pytest.raises(InputError):
            finetune(datalist, trained.folder, "segmentation", **again, options=options)


def inputs(voxels: np.ndarray, folder: Path | None = None) -> SegmentationInput:
    return SegmentationInput(voxels, Condition((2.0, 2.0, 2.0)), UNKNOWN, folder)


def test_features_are_those_of_each_place(tiny_model_file: Path) -> None:
    """In one window the stored features are the decoder's own; the points' features are their interpolation."""
    model = load_model(str(tiny_model_file), device="cpu")
    method = FeatureMethod(window=16, sigmas=(0.1,), scales=(1, 2))
    seen = inputs(np.random.default_rng(0).integers(-200, 200, (16, 14, 12)).astype(np.int16))
    budget = InferenceBudget(torch.device("cpu"), torch.float32, window=16)
    arrays = volume_activations(model.engine.denoiser, seen, method.sigmas, method.scales, budget)
    assert [a.shape[:3] for a in arrays] == [(8, 8, 6), (4, 4, 3), (4, 4, 4), (2, 2, 2)]
    stored = StoredFeatures(method, seen, arrays)
    assert stored.shape == (8, 7, 6)
    points = stored.at(np.arange(8 * 7 * 6))
    torch.testing.assert_close(points, torch.cat([stored.plane(k) for k in range(8)]), atol=1e-5, rtol=1e-5)
    coarse = torch.from_numpy(arrays[1].astype(np.float32)).permute(3, 0, 1, 2)[None]
    wide = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="trilinear")[0, :, :8, :7, :6]
    first = 14 + arrays[0].shape[3]
    torch.testing.assert_close(points[:, first : first + len(wide)].T.reshape(wide.shape), wide, atol=1e-3, rtol=1e-3)


def test_stored_features_belong_to_a_precision(tiny_model_file: Path, tmp_path: Path) -> None:
    """A run in float32 does not read what one in bfloat16 has stored for the same cases."""
    prior, rng = load_model(str(tiny_model_file), device="cpu").engine.denoiser, np.random.default_rng(0)
    seen = inputs(rng.integers(-200, 200, (16, 16, 16)).astype(np.int16), tmp_path)
    example = LabeledInput("a", seen, rng.integers(0, 2, (16, 16, 16)).astype(np.uint8), (True,))
    stored = []
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        method = FeatureMethod(window=16, sigmas=(0.1,), scales=(1,), precision=precision)
        budget = InferenceBudget(torch.device("cpu"), dtype, window=16)
        method.build(1, prior).precompute([example], budget, ProgressMeter(1))
        stored.append(StoredFeatures(method, seen).arrays)
    assert any((np.asarray(one) != np.asarray(other)).any() for one, other in zip(*stored, strict=True))
    validated = inputs(seen.voxels, tmp_path / "validation")  # its first prediction stores what the next ones read
    method.build(1, prior).predict(validated, budget)
    arrays = StoredFeatures(method, validated).arrays
    assert all((np.asarray(one) == np.asarray(other)).all() for one, other in zip(arrays, stored[1], strict=True))


def test_points_and_voxels_are_two_orders_of_the_same() -> None:
    mask = torch.rand(3, 4, 6, 8)
    assert torch.equal(to_voxels(to_points(mask), (2, 3, 4)), mask)
    covered = np.zeros((24, 40, 8), int)
    for box in tiles((24, 40, 8), 24, 8):
        assert all(part.start % 8 == 0 for part in box)
        covered[box] += 1
    assert covered.min() >= 1


def example(target: np.ndarray, known: tuple[bool, ...]) -> LabeledInput:
    voxels = np.random.default_rng(0).integers(-100, 100, target.shape).astype(np.int16)
    return LabeledInput("a", inputs(voxels), target.astype(np.uint8), known)


@pytest.mark.parametrize("kind", ["linear", "nonlinear"])
def test_a_fresh_head_expects_a_small_structure_to_be_rare(kind: str) -> None:
    torch.manual_seed(0)
    head = PointHead([8, 16], 2, kind).eval()
    head.start_from(torch.tensor([0.0005, 0.2]))
    expected = head(torch.randn(500, 24)).sigmoid().mean((0, 2))
    assert 0.0002 < expected[0] < 0.002 and 0.1 < expected[1] < 0.4


def test_weighted_points_count_as_the_whole_scan() -> None:
    """However unevenly points are drawn, their weighted share of a class is that of the scan."""
    target = np.zeros((24, 24, 24))
    target[4:8, 4:8, 4:8] = 1
    one = example(target, (True,))
    groups = strata(one)
    points, weight = draw_points(groups, [len(group) for group in groups], 40_000, np.random.default_rng(0))
    share = (to_points(one.truth())[points].amax(2)[:, 0] * weight).mean()
    assert float(share) == pytest.approx(8 / 12**3, rel=0.02) and float(weight.mean()) == pytest.approx(1, rel=0.01)


def test_a_mirrored_case_keeps_each_voxel_s_place_in_the_body() -> None:
    target = np.zeros((6, 7, 9), np.uint8)
    target[2:4, 2:4, :3] = 1
    place = BodyField((0.5, -1.0, -1.0), (0.01, 0.1, 0.1))
    one = LabeledInput("a", SegmentationInput(target * 100, Condition((2.0, 2.0, 2.0)), place), target, (True,))
    twin, box = mirrored(one), (slice(0, 6), slice(0, 7), slice(0, 9))
    assert torch.equal(twin.truth(), one.truth().flip(-1))
    assert torch.equal(twin.inputs.image(), one.inputs.image().flip(-1))
    torch.testing.assert_close(twin.inputs.body.window(box), one.inputs.body.window(box).flip(-1))


@pytest.mark.slow
def test_mirrored_cases_are_learned_from_where_they_are_asked_for(tiny_model_file: Path, tmp_path: Path) -> None:
    """Both halves of a structure that lies on the left; by default one half only."""
    target = np.zeros((16, 16, 16), np.uint8)
    target[4:8, 4:8, :6] = 1
    voxels = np.random.default_rng(0).integers(-200, 200, target.shape).astype(np.int16)
    one = LabeledInput("a", inputs(voxels, tmp_path), target, (True,))
    for flip, halves in ((False, {True}), (True, {True, False})):
        windows = make_method("dynunet", {"window": 16, "flip": flip}).samples([one], 0, 0, 12)
        assert {bool(windows[n]["target"][..., :8].any()) for n in range(12)} == halves
        features: Any = make_method("features", {"window": 16, "flip": flip, "points": 16})
        segmenter = features.build(1, load_model(str(tiny_model_file), device="cpu").engine.denoiser)
        segmenter.precompute([one], InferenceBudget(torch.device("cpu"), window=16), ProgressMeter(1))
        points = features.samples([one], 0, 0, 12)
        drawn = torch.stack([points[n]["features"].mean(0) for n in range(12)])
        assert (tmp_path / "mirrored").exists() == flip and torch.isfinite(drawn).all()
        assert len(points.examples) == len(halves)


def test_a_rare_structure_counts_as_much_as_a_large_one(tiny_model_file: Path) -> None:
    """A head that knows only how often each class is has a loss of 1, whichever the class; perfection has none."""
    model = load_model(str(tiny_model_file), device="cpu")
    points, shares = 5000, torch.tensor([0.2, 0.002])
    segmenter = make_method("features", {}).build(2, model.engine.denoiser).eval()
    assert isinstance(segmenter, FeatureSegmenter)
    segmenter.expect(shares)
    last = segmenter.part.leave[1]  # type: ignore[union-attr, index]
    with torch.no_grad():
        last.weight.zero_()
    target = torch.zeros(1, points, 2, 8)
    for number, share in enumerate(shares):
        target[0, : round(points * float(share)), number] = 1
    features = torch.zeros(1, points, len(segmenter.part.mean))  # type: ignore[arg-type]
    for known in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]):
        batch = PointBatch(features, target, torch.ones(1, points), torch.tensor([known]))
        assert segmenter.loss(batch).item() == pytest.approx(1, abs=1e-3)


def test_what_is_not_outlined_in_a_case_teaches_nothing() -> None:
    logits = torch.zeros(1, 2, 4, 4, 4, requires_grad=True)
    target = torch.ones(1, 2, 4, 4, 4)
    mask_loss(logits, target, torch.tensor([[1.0, 0.0]]), torch.ones(2)).sum().backward()
    assert logits.grad is not None and logits.grad[0, 0].abs().sum() > 0 and not logits.grad[0, 1].any()


def test_windows_without_a_structure_do_not_outweigh_those_with_it() -> None:
    """At the classes' shares, over all windows, the loss pushes a structure no further down, however rare it is."""
    target = torch.zeros(50, 2, 16, 16, 16)
    target[:1, 0, :4, :4, :4] = 1
    target[:, 1, :8] = 1
    shares = target.mean((0, 2, 3, 4))
    level = torch.logit(shares).requires_grad_()
    logits = level[None, :, None, None, None].expand_as(target)
    loss = mask_loss(logits, target, torch.ones(50, 2), share_entropy(shares))
    loss.mean().backward()
    assert level.grad is not None and (level.grad < 1e-4).all()


def soft_dice_everywhere(
    logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor, entropy: torch.Tensor
) -> torch.Tensor:
    """The loss before: cross-entropy and soft Dice, also of windows without the structure."""
    truth, probability = target.flatten(2), logits.flatten(2).sigmoid()
    share = (2 * (probability * truth).sum(2) + 1) / (probability.sum(2) + truth.sum(2) + 1)
    return (1 - share + functional.binary_cross_entropy(probability, truth, reduction="none").mean(2)).mean(1)


@pytest.mark.parametrize("loss, finds", [(mask_loss, True), (soft_dice_everywhere, False)])
def test_a_small_structure_in_few_windows_is_found(loss: Any, finds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight voxels, in a quarter of the windows, after a training of seconds; the loss before marked nothing."""
    monkeypatch.setattr("MedDiffFMLib.segmentation.dynunet.mask_loss", loss)
    monkeypatch.setattr("MedDiffFMLib.segmentation.window_dataset.FOREGROUND_SHARE", 0.25)
    target = np.zeros((40, 40, 40))
    target[8:10, 8:10, 8:10] = 1
    one = example(target, (True,))
    one.inputs.voxels[target > 0] += 400
    method = make_method("dynunet", {"window": 16, "filters": (4, 8, 8)})
    torch.manual_seed(0)
    segmenter = method.build(1, torch.nn.Identity())
    budget = InferenceBudget(torch.device("cpu"), torch.float32, window=16)
    segmenter.precompute([one], budget, ProgressMeter(1))
    optimizer = torch.optim.Adam(segmenter.part.parameters(), 1e-2)
    samples = method.samples([one], 0, 0, 160)
    for step in range(80):
        optimizer.zero_grad()
        segmenter.loss(method.collate([samples[2 * step], samples[2 * step + 1]])).mean().backward()
        optimizer.step()
    found = float(dice(segmenter.eval().predict(one.inputs, budget).probabilities, one.truth())[0])
    assert found > 0.8 if finds else found == 0


@pytest.mark.slow
@pytest.mark.parametrize("name, options", [("unet", {"head_first": 1}), ("unet", {"scratch": True}), ("dynunet", {})])
def test_window_methods_learn_and_predict(name: str, options: dict[str, Any], tiny_model_file: Path) -> None:
    """A few steps lower the loss, the prior stays as it is, and a CT of odd size is predicted whole."""
    model = load_model(str(tiny_model_file), device="cpu")
    prior = model.engine.denoiser
    before = [p.clone() for p in prior.parameters()]
    target = np.zeros((17, 20, 15))
    target[5:12, 6:13, 4:10] = 1
    one = example(target, (True,))
    one.inputs.voxels[target > 0] += 400
    method = make_method(name, {"window": 16, **options})
    torch.manual_seed(0)
    segmenter = method.build(1, prior)
    segmenter.precompute([one], InferenceBudget(torch.device("cpu"), window=16), ProgressMeter(1))
    batch = collate_windows([WindowSamples([one], 16, 0, n, 1)[0] for n in range(2)])
    optimizer = torch.optim.Adam(segmenter.part.parameters(), 3e-3)
    losses = []
    for _ in range(6):
        loss = segmenter.loss(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    found = segmenter.eval().predict(one.inputs, InferenceBudget(torch.device("cpu"), window=16))
    assert found.probabilities.shape == found.uncertainty.shape == (1, 17, 20, 15)
    assert torch.isfinite(found.probabilities).all() and float(found.uncertainty.max()) <= 0.5
    assert all(torch.equal(a, b) for a, b in zip(before, prior.parameters(), strict=True))


def test_fine_tuning_begins_from_activations_of_even_size(tiny_model_file: Path) -> None:
    """Raw activations differ in size by orders of magnitude; the head was deaf to most of them."""
    model = load_model(str(tiny_model_file), device="cpu")
    one = example(np.pad(np.ones((4, 4, 4)), 8), (True,))
    method = make_method("unet", {"window": 16})
    segmenter = method.build(1, model.engine.denoiser)
    segmenter.precompute([one], InferenceBudget(torch.device("cpu"), window=16), ProgressMeter(1))
    head = segmenter.part["head"]  # type: ignore[index]
    batch = method.collate([method.samples([one], 0, 0, 8)[n] for n in range(8)])
    features = segmenter._features(Window(batch.image, batch.body, batch.condition)).movedim(1, -1).flatten(0, -2)  # type: ignore[operator]
    seen = ((features - head.mean) / head.deviation).detach()
    assert float(seen.mean(0).abs().max()) < 0.05 and float(seen.std(0).max()) < 1.05


def test_segments_become_a_label_map() -> None:
    liver, tumor = np.zeros((6, 6, 6)), np.zeros((6, 6, 6))
    liver[1:5, 1:5, 1:5], tumor[2:4, 2:4, 2:4] = 1, 1
    merged, warnings = merge_segments({"tumor": tumor, "liver": liver}, {"tumor": 2, "liver": 1})
    assert (merged == 2).sum() == 8 and (merged == 1).sum() == 56
    assert warnings == ["8 voxels are in 'liver' and in 'tumor'; they count as 'tumor', the smaller one."]
    for wrong in (
        {},
        {"liver": liver, "tumor": 0 * tumor},
        {"liver": liver, "tumor": liver},
        {"liver": liver, "tumor": tumor[:3]},
    ):
        with pytest.raises(InputError):
            merge_segments(wrong, {"tumor": 2, "liver": 1})
    with pytest.raises(InputError):
        merge_segments({"liver": liver, "tumor": tumor}, {"tumor": 1, "liver": 1})


def test_labels_have_names_and_colors() -> None:
    first, second = label_table({3, 1}, {1: "liver"})
    assert (first.value, first.name, second.value, second.name) == (1, "liver", 3, "label 3")
    for wrong in ({"color": "red"}, {"color": [300, 0, 0]}):
        with pytest.raises(InputError):
            label_table({1}, {1: wrong})
