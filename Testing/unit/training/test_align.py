"""Boxes with facts, and the training of the encoders: exact, resumable, and no patient on both sides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from MedDiffFMLib.cli import main
from MedDiffFMLib.datasets.prepared_cases import Case, Level
from MedDiffFMLib.models.checkpoint import read_weights
from MedDiffFMLib.multimodal.aligned import AlignedEncoders, load_encoders
from MedDiffFMLib.multimodal.encoders import EDGE
from MedDiffFMLib.multimodal.fact_encoder import FactEncoder
from MedDiffFMLib.multimodal.facts.fact import Statement
from MedDiffFMLib.multimodal.pairs import Pair
from MedDiffFMLib.multimodal.spoken_facts import items
from MedDiffFMLib.multimodal.text_codecs import HashedNgrams
from MedDiffFMLib.training.loss_plot import read_table
from MedDiffFMLib.training.multimodal import align as stage
from MedDiffFMLib.training.multimodal.align import AlignConfig, align, read_pool
from MedDiffFMLib.training.multimodal.align_batches import AlignBatch, BoxBatches, FactSpeech
from MedDiffFMLib.training.multimodal.box_pool import Boxes, boxes_of_case, boxes_of_pair
from MedDiffFMLib.training.multimodal.retrieval import chance_of, hits, interval_over_patients, recall


def chest(name: str, patient: str) -> Case:
    """A trunk of 300 x 200 mm on voxels of 4 mm with a rim of fat, two lungs and a spine."""
    k, j, i = (4.0 * (np.arange(n) - (n - 1) / 2) for n in (50, 64, 90))
    a, r = j[None, :, None], i[None, None]
    s = k[:, None, None]
    hounsfield = np.full((50, 64, 90), -1000.0)
    for half, value in (((100, 150), -100), ((85, 130), 50)):
        hounsfield[np.broadcast_to((a / half[0]) ** 2 + (r / half[1]) ** 2 < 1, hounsfield.shape)] = value
    hounsfield[np.broadcast_to(((a - 58) / 18) ** 2 + (r / 20) ** 2 < 1, hounsfield.shape)] = 700
    for middle in (-65.0, 65.0):
        hounsfield[(s / 90) ** 2 + (a / 60) ** 2 + ((r - middle) / 46) ** 2 < 1] = -860
    noise = np.random.default_rng(len(name)).normal(0, 8, hounsfield.shape)
    level = Level(np.rint(hounsfield + noise).astype(np.int16), None, np.full(3, 4.0), np.zeros(3))
    return Case(name, patient, "chest", (level,), (np.zeros(3), np.array(hounsfield.shape) * 4.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boxes")


@pytest.fixture(scope="module")
def boxes(folder: Path) -> Boxes:
    return boxes_of_case(chest("one", "A"), folder)


class Stopped(BoxBatches):
    """The power fails in the third step."""

    def __call__(self, step: int) -> AlignBatch:
        if step == 2:
            raise KeyboardInterrupt
        return super().__call__(step)


def values(statements: list[Statement], kind: str) -> list[dict]:
    return [said.values for said in statements if said.kind == kind]


@pytest.mark.slow
def test_what_is_said_of_a_box_is_true_of_it(boxes: Boxes) -> None:
    """Shares of lung and fat, the side, and nodules that were put in: dense voxels amid lung."""
    assert boxes.ct.shape[1:] == (EDGE,) * 3 and len(boxes.facts) == len(boxes.ct) >= 8
    nodules = 0
    for hounsfield, facts, cells in zip(boxes.ct, boxes.facts, boxes.cells, strict=True):
        lung = values(facts, "lungs")
        told = lung[0]["volume"] if lung else 0
        assert told == pytest.approx((hounsfield < -400).sum() * 0.064 - (hounsfield < -990).sum() * 0.064, abs=150)
        nodules += len(values(facts, "nodule"))
        for number, said in cells:
            place = tuple(slice(8 * n, 8 * n + 8) for n in np.unravel_index(number, (4, 4, 4)))
            for nodule in values(said, "nodule"):
                assert hounsfield[place].max() > nodule["hu"] - 120
    assert nodules > 0


@pytest.mark.slow
def test_boxes_are_made_once(boxes: Boxes, folder: Path) -> None:
    again = boxes_of_case(replace(chest("one", "A"), levels=()), folder)  # there is nothing to make them of
    assert again.facts == boxes.facts and again.cells == boxes.cells and again.patient == "A"
    assert all(np.array_equal(getattr(again, name), getattr(boxes, name)) for name in ("ct", "mr", "xray"))


@pytest.mark.slow
def test_the_mr_of_a_pair_is_the_real_one(tmp_path: Path) -> None:
    hounsfield = np.full((80, 80, 80), -1000, np.int16)
    hounsfield[:, 8:72, 8:72] = 50
    signal = np.where(hounsfield > 0, 0.5, 0).astype(np.float16)
    pair = Pair("p", "B", hounsfield, signal, np.ones(hounsfield.shape, bool), hounsfield > -500)
    found = boxes_of_pair(pair, tmp_path)
    assert found.real and set(np.unique(found.mr[:, 0][found.ct > 0])) <= {84, 85, 86}
    assert not found.mr[:, 0][found.ct < -990].any()


@pytest.mark.slow
def test_batch_n_is_a_function_of_seed_and_n(boxes: Boxes) -> None:
    pool, texts = [boxes], FactEncoder()
    first, again, other = (BoxBatches(pool, 4, seed, texts)(3) for seed in (0, 0, 1))
    assert torch.equal(first.seen["ct"].first, again.seen["ct"].first) and torch.equal(first.said, again.said)
    assert not torch.equal(first.said, other.said)
    assert bool((first.true >= first.said).all()) and bool((first.part_true >= first.part_said).all())


@pytest.mark.slow
def test_what_a_text_says_is_what_its_vector_is_made_of(boxes: Boxes) -> None:
    """Facts and slots that are left out of a text are neither read nor counted; some texts are short, some long."""
    encoder = FactEncoder()
    encoder.measure(boxes.facts)
    told, said, true = FactSpeech(boxes.facts, encoder).draw(np.arange(len(boxes.facts)), np.random.default_rng(0))
    whole = encoder.told(boxes.facts)
    kept = told.weights[..., 0] > 0
    assert torch.equal(true, torch.from_numpy(np.stack([items(facts) for facts in boxes.facts])))
    assert torch.equal(told.weights[kept][:, :1], whole.weights[kept][:, :1]) and not told.weights[~kept].any()
    slots = (told.weights[..., 1:].reshape(*kept.shape, -1, 2).sum(-1) > 0).sum((1, 2))
    assert bool((said.sum(1) <= slots).all()) and bool((said.sum(1) >= slots - 2).all())
    assert kept.sum(1).min() <= 4 and kept.sum(1).max() >= 8


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(
    boxes: Boxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "read_pool", lambda *_: ([boxes], [boxes]))
    loop = replace(stage.LOOP, steps=4, validate_every=4, checkpoint_every=1)
    config = AlignConfig(batch=4, loop=loop)
    whole = align(Path(), None, tmp_path / "whole", config, accelerator="cpu")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "BoxBatches", Stopped)
        align(Path(), None, tmp_path / "halves", config, accelerator="cpu")
    halves = align(Path(), None, tmp_path / "halves", config, accelerator="cpu")
    weights, others = (load_encoders(path).state_dict() for path in (whole, halves))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    rows = (tmp_path / "whole" / "validation.csv").read_text().splitlines()
    assert "text_ct_r5" in rows[0] and len(rows) == 2


@pytest.mark.slow
def test_going_on_begins_with_the_encoders_that_are_given(
    boxes: Boxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "read_pool", lambda *_: ([boxes], [boxes]))
    loop = replace(stage.LOOP, steps=2, validate_every=2)
    first = align(Path(), None, tmp_path / "first", AlignConfig(batch=4, loop=loop), accelerator="cpu")
    still = AlignConfig(batch=4, initial="of first", loop=replace(loop, learning_rate=1e-9, weight_decay=0.0))
    later = align(Path(), None, tmp_path / "later", still, initial=first, accelerator="cpu")
    weights, others = (dict(load_encoders(path).named_parameters()) for path in (first, later))
    assert all(torch.allclose(weights[name], others[name], atol=1e-3) for name in weights)


def test_no_patient_is_trained_and_judged_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """CTs of patients whose pairs are held out are not trained on either."""
    cases = {"training": [SimpleNamespace(patient=p) for p in "ABC"], "validation": [SimpleNamespace(patient="D")]}
    pairs = [SimpleNamespace(patient="A")], [SimpleNamespace(patient="B")]
    monkeypatch.setattr(stage, "open_cases", lambda cache, split: cases[split])
    monkeypatch.setattr(stage, "prepare_boxes", lambda cases, pairs, *_: [*cases, *pairs])
    training, validation = read_pool(Path(), pairs, Path())  # type: ignore[arg-type]
    assert {one.patient for one in training} == {"A", "C"} and {one.patient for one in validation} == {"B", "D"}


def test_retrieval_counts_and_chance() -> None:
    """Vectors that are the same retrieve each other; unrelated ones do as often as chance would."""
    rng = np.random.default_rng(0)
    vectors, others = (rng.normal(size=(200, 64)) for _ in range(2))
    vectors, others = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (vectors, others))
    patient = np.repeat(np.arange(4), 50)
    assert recall(vectors, vectors, 100, 5) == 1 and chance_of(vectors, vectors, patient) < 0.001
    assert recall(vectors, others, 100, 5) == pytest.approx(0.05, abs=0.03)
    assert chance_of(vectors, others) > 0.01


def test_the_chance_of_a_hit_is_exact() -> None:
    """One of the two others is more alike: the own key is first of two drawn in half of the draws, never of three."""
    cosines = np.array([[0.5, 0.9, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert hits(cosines, np.eye(3), 2, 1).tolist() == pytest.approx([0.5, 1, 1])
    assert hits(cosines, np.eye(3), 3, 1).tolist() == pytest.approx([0, 1, 1])


def test_patients_not_boxes_make_the_interval() -> None:
    """Many boxes of two patients, one of whom is always right: the interval is as wide as two patients make it."""
    patient = np.repeat([0, 1], 500)
    assert interval_over_patients((patient == 0).astype(float), patient) == (0, 1)


def command(*arguments: object) -> int:
    """`meddifffm multimodal train` on the boxes that stand in for a cache."""
    return main(["multimodal", "train", "cache", "--batch", "8", "--accelerator", "cpu", *map(str, arguments)])


@pytest.mark.slow
def test_the_command_sets_aside_what_is_worse_than_what_it_began_with(
    boxes: Boxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained on with a rate that breaks them, encoders find fewer partners; with one that changes nothing, as many."""
    monkeypatch.setattr(stage, "read_pool", lambda *_: ([boxes], [boxes]))
    first, broken, still = (tmp_path / name for name in ("first", "broken", "still"))
    assert command("-o", first, "--steps", 12, "--learning-rate", 0.05) == 0
    on = ("--initial", first / "model.safetensors", "--steps", 12)
    capsys.readouterr()
    assert command("-o", broken, *on, "--learning-rate", 1) == 3
    assert "Training made worse what the initial weights had reached: " in capsys.readouterr().err
    assert (broken / "worse.safetensors").exists() and not (broken / "model.safetensors").exists()
    told = json.loads((broken / "gate.json").read_text())
    assert told["worse"] and all(told["after"][name] < 0.98 * told["before"][name] for name in told["worse"])
    assert command("-o", broken, *on, "--learning-rate", 1, "--keep-worse", "--json") == 0, "the run has ended"
    assert json.loads(capsys.readouterr().out)["worse"] == told["worse"]
    kept, refused = (read_weights(broken / f"{name}.safetensors").state for name in ("model", "worse"))
    assert all(torch.equal(kept[name], refused[name]) for name in kept)
    assert command("-o", still, *on, "--learning-rate", 1e-9) == 0
    assert json.loads((still / "gate.json").read_text())["worse"] == [] and (still / "model.safetensors").exists()


@pytest.mark.slow
def test_encoders_learn_texts_by_a_codec_and_find_with_them(
    boxes: Boxes, small_ct_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Through the commands: train with it, resume, evaluate, go on, search in words that no grammar knows."""
    monkeypatch.setattr(stage, "read_pool", lambda *_: ([boxes], [boxes]))
    run, codec = tmp_path / "run", ("--text-codec", "hashed-ngrams")
    assert command("-o", run, *codec, "--steps", 20, "--learning-rate", 0.02) == 0
    assert command("-o", run, *codec, "--steps", 40, "--learning-rate", 0.02) == 0
    weights = run / "model.safetensors"
    assert read_weights(weights).metadata["text_codec"] == '{"name": "hashed-ngrams", "version": "1", "size": 512}'
    assert json.loads((run / "config.json").read_text())["codec"] == "hashed-ngrams 1"
    losses = read_table(run / "losses.csv")["loss"]
    assert len(losses) == 40 and losses[-8:].mean() < 0.9 * losses[:8].mean()
    capsys.readouterr()
    assert main(["multimodal", "evaluate", "cache", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["figures"]
    assert found["text_ct_r5"] > 1.2 * found["chance_r5"]
    assert command("-o", run, "--steps", 40) == 2, "the run reads texts by a codec"
    assert command("-o", tmp_path / "on", "--initial", weights, "--steps", 1, "--text-codec", "letters") == 2
    assert "reads texts by the codec hashed-ngrams, not letters" in capsys.readouterr().err
    assert command("-o", tmp_path / "other", "--text-codec", "cxr-bert") == 3
    out = tmp_path / "out"
    arguments = ["find", small_ct_file, "--prompt", "Fat makes much of it. Ground glass?", "--encoders", weights]
    assert main([*map(str, arguments), "-o", str(out), "--device", "cpu", "--threads", "1"]) == 0
    (told,) = out.glob("*_understood.txt")
    assert "Read as it stands by the text codec hashed-ngrams 1." in told.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("codec", [None, HashedNgrams()])
def test_a_batch_is_brought_to_the_device_with_all_of_its_parts(boxes: Boxes, codec: HashedNgrams | None) -> None:
    batch = BoxBatches([boxes], 4, 0, AlignedEncoders(codec).texts)(0)
    moved = batch.to(torch.device("meta"))
    for name, value in vars(moved).items():
        parts = [value] if isinstance(value, torch.Tensor) else torch.utils._pytree.tree_leaves(value)
        before = torch.utils._pytree.tree_leaves(vars(batch)[name])
        assert [part.shape for part in parts] == [part.shape for part in before], name
        assert all(part.device.type == "meta" for part in parts), name
