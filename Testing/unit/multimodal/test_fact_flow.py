"""Facts drawn given an image: the sampler by its closed form, the calibration by what it promises, slots and file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.models.checkpoint import write_weights
from MedDiffFMLib.multimodal.encoders import EDGE, PIXELS, Vectors
from MedDiffFMLib.multimodal.fact_calibration import (
    NEVER,
    PRECISION,
    STEPS,
    interval_scale,
    lower_bound,
    precision_of,
    word_threshold,
)
from MedDiffFMLib.multimodal.fact_flow import FactFlow, draw_rows, solve
from MedDiffFMLib.multimodal.fact_reader import FORMAT, FactReader, Rules, load_reader, save_reader
from MedDiffFMLib.multimodal.fact_slots import NUMBERS, SIZE, SPANS, Standing, choices, rows_of
from MedDiffFMLib.multimodal.fact_summary import ABSENT, SHOWN, Places, summarize
from MedDiffFMLib.multimodal.facts.estimated import number_sentence, rounded
from MedDiffFMLib.multimodal.facts.fact import Statement
from MedDiffFMLib.multimodal.mr_tiles import tiles_of
from MedDiffFMLib.multimodal.xray_piece import centered

TEXTS = [
    [Statement("fat", {"share": share, "volume": 1.0}), Statement("lungs", {"volume": 100 * share}),
     Statement("place", {"side": "left", "depth": "back"})] for share in range(10, 60)
]  # fmt: skip


def test_the_sampler_draws_two_points_as_often_as_they_are() -> None:
    """With the best denoiser of a mixture of two points, at -1 with probability 0.3 and at 1, that is what comes."""

    def best(rows: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        odds = torch.logit(torch.tensor(0.7)) + 2 * rows / sigma**2
        return 2 * odds.sigmoid() - 1

    noise = torch.randn((20_000, 1), generator=torch.Generator().manual_seed(1))
    drawn = solve(best, noise, levels=80)
    assert float((drawn.abs() - 1).abs().max()) < 1e-3
    assert float((drawn > 0).float().mean()) == pytest.approx(0.7, abs=0.015)
    assert float((solve(best, noise) > 0).float().mean()) == pytest.approx(0.7, abs=0.03), "with the levels in use"


def test_an_image_is_read_alike_whatever_stands_beside_it() -> None:
    torch.manual_seed(0)
    network, vectors = FactFlow().eval(), Vectors(torch.randn(3, 64) / 8, torch.randn(3, 64, 64) / 8)
    rows = draw_rows(network, vectors, "mr")
    alone = draw_rows(network, Vectors(vectors.whole[1:2], vectors.parts[1:2]), "mr")
    assert rows.shape[1:] == (3, SIZE) and torch.allclose(rows[:, 1:2], alone, atol=1e-4)
    assert float(rows[:, 0].std(0).min()) > 0, "draws differ"


def patients_told(rng: np.random.Generator, patients: int, slope: float) -> tuple[np.ndarray, ...]:
    """Sureness, whether right, and patient: patients differ, and a sure word is right more often where slope is 1."""
    patient = np.repeat(np.arange(patients), 8)
    sure = rng.choice(STEPS, len(patient))
    easy = np.repeat(rng.normal(0, 0.06, patients), 8)
    chance = np.clip(0.55 + slope * 0.9 * (sure - 0.5) + easy, 0, 1)
    return sure, rng.random(len(patient)) < chance, patient


def test_what_is_said_keeps_its_promise_on_patients_to_come() -> None:
    rng = np.random.default_rng(0)
    kept, spoken = 0, 0
    for _ in range(200):
        threshold = word_threshold(*patients_told(rng, 120, 1.0))
        sure, right, patient = patients_told(rng, 3000, 1.0)
        said = sure >= threshold
        if said.any():
            spoken += 1
            kept += precision_of(right[said], patient[said])[0] >= PRECISION
    assert spoken > 100 and kept / spoken >= 0.95


def test_nothing_is_said_where_nothing_keeps_the_promise() -> None:
    rng = np.random.default_rng(1)
    assert word_threshold(*patients_told(rng, 500, 0.0)) == NEVER, "sureness that tells nothing"
    few = np.ones(20), np.ones(20, bool), np.arange(20)
    assert lower_bound(1.0, 20) < PRECISION and word_threshold(*few) == NEVER, "too few patients, if all are right"
    ones = np.ones(500), np.ones(500, bool), np.repeat(np.arange(5), 100)
    assert word_threshold(*ones) == NEVER, "many images of few patients"
    many = np.ones(40), np.ones(40, bool), np.arange(40)
    assert word_threshold(*many) == STEPS[-1]


def test_wilson_s_bound_is_where_the_score_test_turns() -> None:
    for share, trials in ((0.95, 80), (1.0, 30), (0.5, 7)):
        bound = lower_bound(share, trials)
        assert (share - bound) / np.sqrt(bound * (1 - bound) / trials) == pytest.approx(1.645, abs=1e-6)


def test_intervals_keep_their_promise_on_patients_to_come_where_they_are_told() -> None:
    rng = np.random.default_rng(2)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        """Narrow intervals, that are told, hold less than wide ones: the spread tells too little."""
        spread = rng.uniform(1, 3, count)
        return np.abs(rng.standard_t(4, count)) * spread**0.5, spread

    kept, spoken = 0, 0
    for _ in range(200):
        scale = interval_scale(*draw(120), np.arange(120), widest=9.0)
        error, spread = draw(5000)
        told = 2 * scale * spread <= 9.0
        if told.any():
            spoken += 1
            kept += float((error <= scale * spread)[told].mean()) >= PRECISION
    assert spoken > 100 and kept / spoken >= 0.95
    assert interval_scale(*draw(20), np.arange(20)) == np.inf, "too few patients"


def test_a_number_that_is_hardly_nearer_than_the_median_is_not_told() -> None:
    error, spread = np.full(100, 1.0), np.full(100, 1.0)
    assert interval_scale(error, spread, np.arange(100), usual=np.full(100, 2.1)) == pytest.approx(1.0, rel=0.03)
    assert interval_scale(error, spread, np.arange(100), usual=np.full(100, 1.9)) == np.inf


def test_what_fails_in_one_group_is_not_said_however_well_it_does_in_the_others() -> None:
    """Of 200 necks all are right; two legs are wrong at a sureness of 0.9 to 1 and right at 1."""
    sure = np.concatenate([np.linspace(0.85, 1, 200), [0.94, 0.92], np.ones(5)])
    right = np.concatenate([np.ones(200, bool), [False, False], np.ones(5, bool)])
    patient, group = np.arange(207), np.array(["neck"] * 200 + ["leg"] * 7)
    assert word_threshold(sure, right, patient) == STEPS[-1]
    threshold = word_threshold(sure, right, patient, group)
    assert 0.94 < threshold < NEVER
    error = np.where(right, 0.5, 3.0)
    assert interval_scale(error, np.ones(207), patient) < 1
    assert interval_scale(error, np.ones(207), patient, group=group) == pytest.approx(3.0, rel=0.03)


def test_rows_tell_what_was_said_and_what_is_not_known() -> None:
    standing = Standing.of(TEXTS)
    rows, known = rows_of([TEXTS[0], [Statement("fat", {"share": 59, "volume": 1.0})]], standing)
    assert rows[0, SPANS["place", "side"]].tolist() == [-1, 1, -1] and not known[1, SPANS["place", "side"]].any()
    assert rows[0, SPANS["lungs", ""]] == 1 and rows[1, SPANS["lungs", ""]] == -1 and known[1, SPANS["lungs", ""]] == 1
    assert rows[0, SPANS["fat", "share"]] == pytest.approx(-1) and rows[1, SPANS["fat", "share"]] == pytest.approx(1)
    assert not known[0, SPANS["bone", "share"]].any() and ("bone", "share") not in standing.lines
    for value in (10.0, 23.0, 59.0):
        place = standing.to_row(("fat", "share"), value)
        assert standing.to_value(("fat", "share"), place) == pytest.approx(value, rel=2e-3)
    again = Standing.from_record(json.loads(json.dumps(standing.as_record())))
    assert all(np.array_equal(again.lines[key], line) for key, line in standing.lines.items())


def test_tiles_agree_on_what_a_whole_image_shows() -> None:
    """Lung in one of two tiles; shares as means over the body, volumes shared out, one level from two heights."""
    standing = Standing({key: np.linspace(0, 100, 33) for key in NUMBERS})
    rows = np.zeros((4, 2, SIZE))
    for tile, (lung, fat, level) in enumerate(((1, 20.0, 50.0), (-1, 60.0, 70.0))):
        rows[:, tile, SPANS["lungs", ""].start] = lung
        rows[:, tile, SPANS["gas", ""].start] = -1
        rows[:, tile, SPANS["fat", "share"]] = standing.to_row(("fat", "share"), fat)
        rows[:, tile, SPANS["lungs", "volume"]] = standing.to_row(("lungs", "volume"), 80)
        rows[:, tile, SPANS["level", "level"]] = standing.to_row(("level", "level"), level)
        rows[:, tile, SPANS["region", "region"].start + 1 + tile] = 1
    places = Places(np.array([0.75, 0.25]), np.array([0.5, 1.0]), np.array([-10.0, 10.0]))
    found = summarize(rows, standing, places)
    assert found.words["lungs", ""] == (SHOWN, 1.0) and found.words["gas", ""] == (ABSENT, 1.0)
    assert found.words["region", "region"] == (choices(("region", "region"))[1], 0.75)
    values = {key: value for key, (value, _) in found.numbers.items()}
    assert values["fat", "share"] == pytest.approx(30) and values["lungs", "volume"] == pytest.approx(40)
    assert values["level", "level"] == pytest.approx(60)


def test_tiles_cover_the_body_once() -> None:
    signal = np.zeros((50, 60, 70), np.float32)
    signal[:, 10:50, 5:65] = 0.8
    tiles = tiles_of(signal)
    assert tiles is not None and tiles.boxes.shape[1:] == (EDGE,) * 3 and tiles.boxes.max() == 136
    assert tiles.places.weight.sum() == pytest.approx(1)
    held = (tiles.boxes > 0).reshape(len(tiles.boxes), -1).sum(1)
    assert held @ tiles.places.own == pytest.approx((signal > 0).sum(), rel=0.05), "what is counted twice is shared out"
    assert tiles.places.above.min() == pytest.approx(-tiles.places.above.max(), abs=0.5)
    assert tiles_of(np.zeros((20, 20, 20), np.float32)) is None
    assert len(tiles_of(np.full((8, 12, 12), 0.5, np.float32)).boxes) == 1, "smaller than a tile"  # type: ignore[union-attr]


def test_what_an_xray_shows_is_moved_to_its_middle() -> None:
    picture = np.zeros((2, PIXELS, PIXELS), np.uint8)
    picture[0, 3:13, 40:60] = 90
    moved = centered(picture)
    rows, columns = np.nonzero(moved[0])
    assert moved[0].sum() == picture[0].sum() and not moved[1].any()
    assert abs(rows.mean() - 31.5) <= 0.5 and abs(columns.mean() - 31.5) <= 0.5


def test_ends_are_rounded_outward() -> None:
    assert rounded("fat", "share", 38.4, 31.2, 44.6) == (38, 31, 45)
    assert rounded("lungs", "volume", 1234, 1111, 1391) == (1230, 1110, 1400)
    said = number_sentence("body_mass", "mass", *rounded("body_mass", "mass", 1.234, 1.01, 1.31))
    assert said == "Estimated: the shown body has about 1.2 kg (1.0 to 1.4)."


@pytest.fixture
def reader() -> FactReader:
    torch.manual_seed(3)
    rules = {"mr": Rules({("lungs", ""): 0.75, ("gas", ""): NEVER}, {("fat", "share"): 1.5})}
    return FactReader(FactFlow().eval(), Standing.of(TEXTS), rules, "ab" * 32)


def test_a_reader_comes_back_from_its_file(reader: FactReader, tmp_path: Path) -> None:
    digest = save_reader(tmp_path / "r.safetensors", reader, {})
    again = load_reader(tmp_path / "r.safetensors", digest)
    assert again.rules["mr"].words == {("lungs", ""): 0.75} and again.encoders == reader.encoders
    assert again.rules["mr"].numbers == reader.rules["mr"].numbers
    state = reader.network.half().float().state_dict()
    assert all(torch.equal(tensor, again.network.state_dict()[name]) for name, tensor in state.items())


def test_files_that_are_no_reader_are_refused(reader: FactReader, tmp_path: Path) -> None:
    place = tmp_path / "r.safetensors"
    save_reader(place, reader, {})
    content = bytearray(place.read_bytes())
    content[-3] ^= 4
    (tmp_path / "bit.safetensors").write_bytes(content)
    state = reader.network.state_dict()
    described = {"format": FORMAT, "standing": "{}", "rules": "{}"}
    write_weights(tmp_path / "other.safetensors", state, {**described, "format": "x"})
    write_weights(tmp_path / "slots.safetensors", state, {**described, "standing": '{"heart.size": [1, 2]}'})
    write_weights(
        tmp_path / "rules.safetensors", state, {**described, "rules": '{"pet": {"words": {}, "numbers": {}}}'}
    )
    write_weights(tmp_path / "less.safetensors", {"out.bias": state["out.bias"]}, described)
    (tmp_path / "short.safetensors").write_bytes(struct.pack("<Q", 9) + b"{}")
    for name in ("bit", "other", "slots", "rules", "less", "short", "absent"):
        with pytest.raises(ModelError):
            load_reader(tmp_path / f"{name}.safetensors")
