"""The reading kit: what it gives away, what it keeps, and how answers are judged."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.reading.answers import Answer, Reading, exact_interval, guessing, read_answers, summarize
from MedDiffFMLib.reading.kit import LETTERS, Pair, read_key, read_kit, write_kit
from MedDiffFMLib.reading.places import ball, balls, lesions

PAIRS = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_ct_file: Path, tiny_model_file: Path) -> Path:
    """A kit of filled balls in the small CT."""
    folder = tmp_path_factory.mktemp("kit") / "kit"
    code = main(["reading-kit", str(small_ct_file), "-o", str(folder), "--pairs", str(PAIRS), "--diameter", "12",
                 "--edge", "60", "--seed", "5", "--model", str(tiny_model_file), "--quiet"])  # fmt: skip
    assert code == 0
    return folder


@pytest.mark.slow
def test_nothing_but_the_voxels_of_the_middle_tells_which_is_real(made: Path, small_ct: Volume) -> None:
    kit, (identifier, real) = read_kit(made), read_key(made.with_name("kit-key.json"))
    assert identifier == kit.id and set(real) == set(range(1, PAIRS + 1)) and set(real.values()) <= set(LETTERS)
    files = [made / pair.file(letter) for pair in kit.pairs for letter in LETTERS]
    assert {path.name for path in made.iterdir()} == {path.name for path in files} | {"kit.json"}
    assert len({path.stat().st_mtime_ns for path in files}) == 1
    assert "real" not in json.dumps(json.loads((made / "kit.json").read_text())["pairs"])
    places = json.loads(made.with_name("kit-key.json").read_text())["places"]
    for pair, place in zip(kit.pairs, places, strict=True):
        a, b = (made / pair.file(letter) for letter in LETTERS)
        assert a.read_bytes()[:352] == b.read_bytes()[:352]  # the whole header
        assert a.stat().st_size == b.stat().st_size
        first, second = read_volume(a), read_volume(b)
        changed = first.voxels != second.voxels
        places_changed = np.c_[np.argwhere(changed)[:, ::-1], np.ones(changed.sum())] @ first.ijk_to_ras.T
        assert changed.any() and np.linalg.norm(places_changed[:, :3], axis=1).max() < 6 + 3  # mm of the origin
        kept = first if real[pair.pair] == "a" else second
        moved = kept.ijk_to_ras.copy()
        moved[:3, 3] += place["center_ras_mm"]
        i, j, k = np.rint((np.linalg.inv(small_ct.ijk_to_ras) @ moved)[:3, 3]).astype(int)
        size = kept.voxels.shape
        there = small_ct.voxels[k : k + size[0], j : j + size[1], i : i + size[2]]
        assert np.array_equal(kept.voxels, there)


@pytest.mark.slow
def test_the_same_seed_makes_the_same_kit(
    made: Path, small_ct_file: Path, tiny_model_file: Path, tmp_path: Path
) -> None:
    arguments = ["--pairs", str(PAIRS), "--diameter", "12", "--edge", "60", "--model", str(tiny_model_file), "--quiet"]
    for name, seed in (("same", "5"), ("other", "6")):
        assert main(["reading-kit", str(small_ct_file), "-o", str(tmp_path / name), "--seed", seed, *arguments]) == 0
    assert read_kit(tmp_path / "same").id == read_kit(made).id != read_kit(tmp_path / "other").id
    assert main(["reading-kit", str(small_ct_file), "-o", str(tmp_path / "same"), *arguments]) == 2  # never replaced


def test_too_few_places_leave_nothing_behind(small_ct_file: Path, tiny_model_file: Path, tmp_path: Path) -> None:
    code = main(["reading-kit", str(small_ct_file), "-o", str(tmp_path / "kit"), "--pairs", "20", "--diameter", "60",
                 "--edge", "120", "--model", str(tiny_model_file), "--quiet"])  # fmt: skip
    assert code == 2 and list(tmp_path.iterdir()) == []


def test_places_lie_in_the_body_apart_from_each_other(small_ct: Volume) -> None:
    found = [mask for _n, mask in zip(range(5), balls(small_ct, 12.0, np.random.default_rng(0)), strict=False)]
    assert len(found) == 5 and np.sum(found, axis=0).max() == 1
    assert all(small_ct.voxels[mask].mean() > -950 for mask in found)


def test_lesions_are_single_ones_that_are_neither_tiny_nor_huge(small_ct: Volume) -> None:
    marked = np.zeros(small_ct.voxels.shape, bool)
    marked[2, 2, 2] = True  # 3 mm
    marked[5:9, 5:9, 5:9] = True
    marked[:, 20:, :] = True  # 100 mm
    (found,) = lesions(small_ct, marked, np.random.default_rng(0))
    assert found.sum() == 64 and found[5:9, 5:9, 5:9].all()
    assert ball(small_ct, (small_ct.ijk_to_ras @ [8, 8, 8, 1])[:3], 7.0).sum() == 7  # 3 mm apart, within 3.5 mm


def unread(folder: Path, pairs: int = 20) -> Path:
    """A kit of small pieces without a prior."""
    folder.mkdir()
    rows = [Pair(number, 400, 40) for number in range(1, pairs + 1)]
    for row in rows:
        for letter in LETTERS:
            piece = np.full((4, 5, 6), row.pair * 10 + (letter == "b"), np.int16)
            write_volume(Volume(piece, np.eye(4)), folder / row.file(letter))
    write_kit(folder, 1, "Which one is real?", rows)
    return folder


def test_a_reading_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    kit = read_kit(unread(tmp_path / "kit"))
    seen, reader = [], "Dr. A/1"
    while (reading := Reading(kit, reader)).next:  # as if the program ended after each answer
        pair, letters = reading.next
        seen.append((pair.pair, letters))
        reading.choose("left", 2.345)
    assert [pair for pair, _letters in seen] == [pair.pair for pair, _letters in kit.order(reader)]
    assert sorted(pair for pair, _letters in seen) == list(range(1, 21))
    assert len({letters for _pair, letters in seen}) == 2 and kit.order("B") != kit.order(reader)
    with open(reading.path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 20 and rows[0]["reader"] == reader and rows[0]["seconds"] == "2.3"
    assert [row["choice"] for row in rows] == [letters[0] for _pair, letters in seen]
    with pytest.raises(InputError, match="another"):
        Reading(kit, "Dr. A 1")  # the same file's name, another reader


def test_answers_are_judged_with_exact_intervals(tmp_path: Path) -> None:
    from scipy.stats import binomtest

    for right, count in ((0, 20), (13, 20), (20, 20), (77, 120), (1, 1)):
        expected = binomtest(right, count, 0.5)
        assert np.allclose(exact_interval(right, count), expected.proportion_ci(0.95, "exact"), atol=1e-7)
        assert guessing(right, count) == pytest.approx(expected.pvalue)
    kit = read_kit(unread(tmp_path / "kit"))
    real = {pair.pair: LETTERS[pair.pair % 2] for pair in kit.pairs}
    answers = []
    for reader, right in (("A", 15), ("B", 10)):
        reading = Reading(kit, reader)
        while reading.next:
            pair, letters = reading.next
            wanted = real[pair.pair] if reading.done < right else next(n for n in LETTERS if n != real[pair.pair])
            reading.choose(("left", "right")[letters.index(wanted)], 10 + reading.done)
        answers.append(reading.path)
    first, second, both = summarize(read_answers(answers), kit.id, real)
    assert (first.right, second.right, both.right, both.answers) == (15, 10, 25, 40)
    assert first.seconds == 19.5 and "15 of 20 right (75%, 95 % interval 51% to 91%" in first.sentence()
    with pytest.raises(InputError, match="another kit"):
        summarize([Answer("x", "A", 1, "a", "left", 1.0)], kit.id, real)
    with pytest.raises(InputError, match="twice"):
        read_answers([answers[0], answers[0]])


@pytest.mark.parametrize("damage", ["lost", "cut", "foreign"])
def test_a_damaged_kit_is_refused(tmp_path: Path, damage: str) -> None:
    folder = unread(tmp_path / "kit", 2)
    if damage == "lost":
        (folder / "002b.nii").unlink()
    else:
        (folder / "kit.json").write_text("{" if damage == "cut" else '{"format": "other"}')
    with pytest.raises(InputError):
        read_kit(folder)
