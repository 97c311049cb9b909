"""CT from MR and back: guess, guidance, flow, pairs, familiarity, file, and a training that is resumed exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.imaging.intensity import to_network
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.multimodal.aligned import AlignedEncoders
from MedDiffFMLib.multimodal.familiarity import learn_familiarity
from MedDiffFMLib.multimodal.flow import Flow, FlowConfig
from MedDiffFMLib.multimodal.flow_file import Flows, load_flows, save_flows
from MedDiffFMLib.multimodal.guidance import Source
from MedDiffFMLib.multimodal.intensity_lookup import IntensityLookup
from MedDiffFMLib.multimodal.local_guess import Example, LocalGuess, fit_local_guess
from MedDiffFMLib.multimodal.mr_body import mr_body
from MedDiffFMLib.multimodal.mr_intensity import FAT
from MedDiffFMLib.multimodal.mutual_information import normalized_mutual_information
from MedDiffFMLib.multimodal.names import CT
from MedDiffFMLib.multimodal.nearest_neighbor import learn_neighbors
from MedDiffFMLib.multimodal.translation import translate_image
from MedDiffFMLib.training.loop import LoopConfig
from MedDiffFMLib.training.pretrain import translation
from MedDiffFMLib.training.pretrain.shift_tolerant import best_shift, shifted
from MedDiffFMLib.training.pretrain.translation import FlowTraining, TranslationConfig, pretrain_translation
from MedDiffFMLib.training.pretrain.translation_twins import TwinLoss, box_of, shown_parts
from MedDiffFMLib.training.pretrain.translation_windows import Window
from Testing.unit.multimodal.test_mr import painted, thigh

INFINITY = torch.full((1,), torch.inf)
ZERO = torch.zeros(1)
SMALL = FlowConfig(("mr-t1",), channels=(16, 16, 16), groups=4)
HU, SIGNAL = (-1000, -100, 50, 900), (0.0, 1.0, 0.3, 0.06)


def images(shape: tuple[int, int, int] = (16, 40, 40)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """MR, CT (network range) and body of a limb, (1, 1, D, H, W)."""
    labels = thigh((shape[0], 64, 64))[:, 12:52, 10:50]
    mr, ct = FAT.to_network(np.array(SIGNAL)[labels]), to_network(np.array(HU)[labels])
    return tuple(torch.from_numpy(np.float32(a))[None, None] for a in (mr, ct, labels > 0))  # type: ignore[return-value]


def flow(trained: bool = False) -> Flow:
    """A small one; ``trained``: with random numbers where zeros are at first."""
    torch.manual_seed(0)
    made = Flow(SMALL)
    mr, ct, body = images()
    inside = body > 0
    (table,) = made.lookup.values()
    table.fit(mr[inside].numpy(), ct[inside].numpy())  # type: ignore[operator]
    if trained:
        for parameter in made.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
    return made.eval().requires_grad_(False)


def test_the_lookup_gives_the_table_without_noise_and_one_number_in_noise_alone() -> None:
    table = IntensityLookup()
    source = np.repeat(np.array([-0.9, -0.5, 0.3], np.float32), (10, 60, 30))
    table.fit(source, np.repeat(np.array([0.9, 0.05, -0.1], np.float32), (10, 60, 30)))
    points = torch.tensor([-0.9, -0.5, 0.3]).reshape(1, 1, 1, 1, 3)
    assert torch.allclose(table(points, ZERO).flatten(), torch.tensor([0.9, 0.05, -0.1]), atol=0.03)
    nothing = table(points, INFINITY)
    assert torch.allclose(nothing, (table.values * table.share).sum(), atol=1e-4)
    some = table(points, torch.tensor([0.4])).flatten()
    assert some.min() > -0.1 and some.max() < 0.9, "between the tissues"


def test_an_untrained_flow_is_the_guess_bit_for_bit() -> None:
    mr, _, body = images()
    untrained = flow()
    sources = {"mr-t1": Source(mr, ZERO, body=body)}
    assert torch.equal(untrained(mr, INFINITY, sources).image, untrained.guess(mr, sources))


@pytest.mark.slow
def test_the_guess_knows_bone_by_its_surroundings_and_a_patient_by_the_others() -> None:
    """Compact bone is as dark as air is: no table of intensities tells them apart."""
    examples = []
    for number in range(4):
        labels = thigh((12, 40, 40))
        body = labels > 0
        signal, hounsfield = painted(labels, SIGNAL, 0.02, number), painted(labels, HU, 10, number)
        examples.append(Example(FAT.to_network(signal), body, body, to_network(hounsfield), str(number)))
    guess, others = fit_local_guess(examples, 2.0, steps=200)
    made = 1000 * guess.of_image(examples[0].image, examples[0].body, 2.0)
    found, bone = made > 300, labels == 3
    assert 2 * np.count_nonzero(found & bone) > 0.7 * (np.count_nonzero(found) + np.count_nonzero(bone))
    assert np.all(made[labels == 0] == -1000)
    assert others.keys() == {"0", "1", "2", "3"}
    weights = {name: made.second.layers[0].weight for name, made in others.items()}
    assert not torch.equal(weights["0"], weights["1"]), "each of the others alone"


def test_an_absent_source_has_no_effect_at_all() -> None:
    mr, ct, _ = images()
    trained, sigma = flow(trained=True), torch.tensor([0.3])
    one, other = (trained(ct, sigma, {"mr-t1": Source(image, INFINITY)}) for image in (mr, torch.rand_like(mr)))
    assert torch.equal(one.image, other.image)
    assert torch.allclose(one.image, trained(ct, sigma, {}).image, atol=1e-5)
    given = trained(ct, sigma, {"mr-t1": Source(mr, ZERO)})
    assert not torch.allclose(given.image, one.image), "and a given one has"


def test_anatomy_comes_with_its_place() -> None:
    trained = flow(trained=True)
    mr = torch.full((1, 1, 16, 64, 64), -1.0)
    mr[:, :, 4:12, 20:36, 20:36] = torch.rand((8, 16, 16), generator=torch.Generator().manual_seed(1))
    here, there = (
        trained(image, INFINITY, {"mr-t1": Source(image, ZERO)}).image for image in (mr, torch.roll(mr, 8, dims=4))
    )
    inner = (slice(None), slice(None), slice(None), slice(16, 40), slice(24, 40))
    moved, still = (
        float(torch.corrcoef(torch.stack([image[inner].flatten(), there[inner].flatten()]))[0, 1])
        for image in (torch.roll(here, 8, dims=4), here)
    )
    assert moved > 0.95
    assert still < moved - 0.1


def test_the_best_shift_of_a_truth_is_the_one_it_was_moved_by() -> None:
    image = torch.rand((1, 12, 16, 16), generator=torch.Generator().manual_seed(0))
    moved = torch.roll(image, (1, -2, 2), dims=(1, 2, 3))
    shift = best_shift(image, moved, torch.ones_like(image))
    assert shift == (1, -2, 2)
    assert torch.equal(shifted(moved, shift), shifted(image, (0, 0, 0)))


def test_mutual_information_is_one_of_strangers_and_two_of_equals() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(200_000), rng.random(200_000)
    assert normalized_mutual_information(first, second) == pytest.approx(1, abs=2e-3)
    assert normalized_mutual_information(first, 3 * first + 1) == pytest.approx(2, abs=1e-6)


def test_the_body_of_an_mr_holds_its_dark_bone() -> None:
    labels = thigh()
    found = mr_body(np.abs(painted(labels, SIGNAL, 0.02, 0)), (3.0, 2.0, 2.0))
    body = labels > 0
    assert 2 * (found & body).sum() / (found.sum() + body.sum()) > 0.95
    assert found[labels == 3].all()


def scan(seed: int, signal: tuple[float, ...] = SIGNAL) -> tuple[np.ndarray, np.ndarray]:
    """An MR in the network's range and its body."""
    labels = thigh()
    return FAT.to_network(np.abs(painted(labels, signal, 0.02, seed))), labels > 0


@pytest.mark.slow
def test_what_looks_as_in_training_is_familiar_and_another_contrast_is_not() -> None:
    familiarity = learn_familiarity([scan(n) for n in range(4)], [scan(9)], 2.0)
    own, body = scan(20)
    strange, _ = scan(20, (0.0, 0.9, 1.05, 1.4))  # a CT given as an MR
    far = familiarity.distance(own, body, 2.0)
    assert np.mean(far[body] > 1) < 0.05
    assert np.mean(familiarity.distance(strange, body, 2.0)[body] > 1) > 0.9
    assert not far[~body].any()


@pytest.mark.slow
def test_flows_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    mr, ct, body = images()
    small = replace(SMALL, sources=("ct",))
    trained = Flows(
        {"ct": flow(trained=True).half().float(), "mr-t1": Flow(small)},
        {"ct": 1.1, "mr-t1": 0.9}, {"ct": 0.5, "mr-t1": 1.0},
        learn_familiarity([scan(0)], [scan(1)], 2.0),
        learn_neighbors([(mr[0, 0].numpy(), ct[0, 0].numpy(), body[0, 0].numpy() > 0)], 2.0),
        LocalGuess(), facts={"steps": 1},
    )  # fmt: skip
    digest = save_flows(tmp_path / "flows.safetensors", trained)
    back = load_flows(tmp_path / "flows.safetensors", digest)
    parts = (mr[0, 0], torch.ones_like(mr[0, 0]), body[0, 0])
    before, after = (translate_image(f.flows["ct"], *parts, precision="float32") for f in (trained, back))
    assert torch.allclose(before.image, after.image, atol=2e-3)
    assert back.spread == trained.spread
    content = bytearray((tmp_path / "flows.safetensors").read_bytes())
    content[-3] ^= 1
    (tmp_path / "flows.safetensors").write_bytes(content)
    with pytest.raises(ModelError):
        load_flows(tmp_path / "flows.safetensors")


def toy_pairs(folder: Path) -> Path:
    """A datalist of three patients, one of whom judges."""
    rows = []
    for number in range(3):
        labels = thigh((12, 40, 40))
        grid = np.diag([-2.0, -2.0, 2.0, 1.0])
        ct, mr = painted(labels, HU, 10, number), np.abs(painted(labels, SIGNAL, 0.02, number)) * 500
        write_volume(Volume(ct.astype(np.int16), grid), folder / f"{number}_ct.nrrd")
        write_volume(Volume(mr.astype(np.int16), grid), folder / f"{number}_mr.nrrd")
        rows.append({"image": f"{number}_ct.nrrd", "mr": f"{number}_mr.nrrd", "patient": str(number)})
    (folder / "pairs.json").write_text(json.dumps({"training": rows[:2], "validation": rows[2:]}))
    return folder / "pairs.json"


def test_the_invariant_is_that_of_the_encoders_on_the_parts_that_a_window_fills() -> None:
    torch.manual_seed(0)
    encoders = AlignedEncoders()
    windows = [torch.randn(2, 1, 24, 40, 40).clamp(-1, 1) for _ in range(2)]
    found = TwinLoss(encoders)(*windows, CT)
    boxes = [torch.full((2, 1, 32, 32, 32), -1.0) for _ in windows]
    for box, window in zip(boxes, windows, strict=True):
        box[..., :12, :20, :20] = window.reshape(2, 1, 12, 2, 20, 2, 20, 2).mean((3, 5, 7))
    parts = [
        encoders.volumes.eval()(box, "ct").parts.reshape(2, 4, 4, 4, -1)[:, :2, :3, :3].reshape(-1, 64) for box in boxes
    ]
    centered = [(p - p.mean(0)) / p.std(0) for p in parts]
    cross = centered[0].T @ centered[1] / len(parts[0])
    off = cross.square().sum() - cross.diagonal().square().sum()
    by_hand = ((1 - cross.diagonal()).square().sum() + 5e-3 * off) / 64
    assert float(found) == pytest.approx(float(by_hand), rel=0.05)
    whole = torch.randn(2, 1, 64, 64, 80)
    assert shown_parts(whole).tolist() == list(range(64)) and box_of(whole).shape == (2, 1, 32, 32, 32)


def test_the_invariant_reaches_the_flow_and_without_weight_changes_nothing() -> None:
    torch.manual_seed(0)
    module, encoders = FlowTraining({CT: SMALL}), AlignedEncoders()
    mr, ct, body = (part[0] for part in images())
    window = Window(ct, mr, body, body, body, body.float(), 0.5 * ct, False)
    noise, sigmas = torch.zeros(2, 2, 1, 16, 40, 40), torch.tensor([[torch.inf] * 2, [0.0] * 2])
    other = replace(window, ct=ct.flip(-1), mr=mr.flip(-2))

    def loss(weight: float, twins: TwinLoss | None) -> torch.Tensor:
        config = TranslationConfig(float32=True, invariant_weight=weight)
        return module(CT, [window, other], sigmas, noise, config, twins)

    twins = TwinLoss(encoders)
    plain = loss(0.0, None)
    assert torch.equal(plain, loss(0.0, twins))
    before = {name: tensor.clone() for name, tensor in encoders.state_dict().items()}
    added = loss(1.0, twins) - plain
    assert float(added.detach()) > 0
    added.backward()
    head = module.flows[CT].trunk.out[2].conv.weight.grad  # type: ignore[union-attr,index]
    assert head is not None and float(head[:8].abs().max()) > 0
    assert float(head[8:].abs().max()) == 0  # the invariant says nothing of the spread
    assert all(torch.equal(before[name], tensor) for name, tensor in encoders.state_dict().items())
    assert all(parameter.grad is None for parameter in encoders.volumes.parameters())


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("SimpleITK")
    monkeypatch.setattr(translation, "fit_local_guess", partial(fit_local_guess, steps=30))
    datalist = toy_pairs(tmp_path)
    loop = LoopConfig(steps=4, warmup=2, checkpoint_every=2, validate_every=4, learning_rate=1e-3)
    sizes = {"ct": SMALL, "mr": replace(SMALL, sources=("ct",))}
    config = TranslationConfig(window=(16, 24, 24), batch=2, mr_every=2, float32=True, loop=loop, **sizes)

    whole = pretrain_translation(datalist, None, tmp_path / "whole", config, accelerator="cpu")
    short = replace(config, loop=replace(loop, decay_share=0.15, steps=2))
    pretrain_translation(datalist, None, tmp_path / "parts", short, accelerator="cpu")
    resumed = pretrain_translation(datalist, None, tmp_path / "parts", config, accelerator="cpu")
    assert whole.facts["validation"].keys() >= {"ct_mae", "ct_lookup", "bone_dice", "mr_mae"}  # type: ignore[index]
    assert resumed.facts["steps"] == 4  # type: ignore[index]
    lines = [(tmp_path / run / "losses.csv").read_text().splitlines()[1:] for run in ("whole", "parts")]
    losses = [[float(line.split(",")[1]) for line in part] for part in lines]
    assert losses[0] == losses[1]
    assert len(losses[1]) == 4
