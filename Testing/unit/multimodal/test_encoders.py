"""Encoders: unit vectors, parts in their place, texts as sets of statements, and a file that gives the same again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.multimodal.aligned import AlignedEncoders, load_encoders, save_encoders
from MedDiffFMLib.multimodal.encoders import EDGE, PARTS, PIXELS, SIZE
from MedDiffFMLib.multimodal.search import best_places, likeness_map
from MedDiffFMLib.multimodal.spoken_facts import prompt_text


@pytest.fixture(scope="module")
def encoders() -> AlignedEncoders:
    torch.manual_seed(0)
    return AlignedEncoders().eval().requires_grad_(False)


def test_vectors_have_length_one(encoders: AlignedEncoders) -> None:
    box, picture = torch.randn(2, 1, EDGE, EDGE, EDGE).clamp(-1, 1), torch.randn(2, 1, PIXELS, PIXELS).clamp(-1, 1)
    for found, dimensions in ((encoders.ct(box), 3), (encoders.mr(box), 3), (encoders.xray(picture), 2)):
        assert found.whole.shape == (2, SIZE) and found.parts.shape == (2, PARTS**dimensions, SIZE)
        assert torch.allclose(found.whole.norm(dim=-1), torch.ones(2))
        assert torch.allclose(found.parts.norm(dim=-1), torch.ones(2, PARTS**dimensions))


def test_a_part_speaks_of_its_own_place(encoders: AlignedEncoders) -> None:
    """A spot in one part changes that part's vector more than any that is not beside it."""
    box = torch.zeros(1, 1, EDGE, EDGE, EDGE)
    spot = box.clone()
    spot[..., 2:6, 26:30, 10:14] = 1.0
    change = (encoders.ct(spot).parts - encoders.ct(box).parts)[0].norm(dim=1).reshape((PARTS,) * 3)
    assert np.unravel_index(int(change.argmax()), change.shape) == (0, 3, 1)


def test_order_and_company_of_texts_do_not_matter(encoders: AlignedEncoders) -> None:
    one, other = ["fat: share 34 %", "bone: share 5 %", "level: level 31 cm"], ["contrast agent: with"]
    alone = encoders.text([one])[0]
    assert torch.allclose(alone, encoders.text([one[::-1]])[0], atol=1e-6)
    assert torch.allclose(alone, encoders.text([other, one, []])[1], atol=1e-6)
    assert bool(torch.isfinite(encoders.text([[]])).all())


def test_numbers_are_known_by_their_value(encoders: AlignedEncoders) -> None:
    near, far = ((encoders.text([["fat: share 34 %"]]) @ encoders.text([[f"fat: share {n} %"]]).T) for n in (35, 80))
    assert float(near) > float(far)


def test_prompts_become_facts_in_words() -> None:
    text, told = prompt_text("nodule in the right upper lobe, zebra")
    assert text == ["nodule candidate: right, upper third", "zebra"]
    assert told.startswith("Understood: nodule candidate: right, upper third.") and "zebra" in told


def test_the_file_gives_the_same_vectors(encoders: AlignedEncoders, tmp_path: Path) -> None:
    save_encoders(tmp_path / "e.safetensors", encoders, {})
    box = torch.randn(1, 1, EDGE, EDGE, EDGE).clamp(-1, 1)
    found = load_encoders(tmp_path / "e.safetensors").ct(box).whole
    assert float((found * encoders.ct(box).whole).sum()) > 0.999
    (tmp_path / "f.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError):
        load_encoders(tmp_path / "f.safetensors")


def test_the_map_is_highest_where_the_text_was_found(encoders: AlignedEncoders) -> None:
    """Looking for the vector of a part finds that part, in a scan of any size."""
    scan = np.full((40, 33, 50), -1000, np.float32)
    scan[4:36, 2:30, 6:44] = 40
    scan[20:26, 10:16, 30:36] = 1000
    shown = np.zeros((1, EDGE, EDGE, EDGE), np.float32)
    shown[:] = scan[8:40, 1:33, 18:50][:EDGE]
    from MedDiffFMLib.multimodal.boxes import ct_input

    parts = encoders.ct(ct_input(shown)).parts[0].reshape(PARTS, PARTS, PARTS, SIZE)
    looked: list[int] = []
    likeness = likeness_map(scan, parts[1, 1, 1], encoders, looked.append)
    assert likeness.shape == scan.shape and sum(looked) == 12
    first = best_places(likeness, scan > -500, 3)[0]
    assert np.abs(np.array(first.index) - (20, 13, 30)).max() <= 12


def test_places_lie_apart() -> None:
    likeness = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
    places = best_places(likeness, np.ones(likeness.shape, bool), 10)
    assert [one.likeness for one in places] == sorted((one.likeness for one in places), reverse=True)
    apart = [np.abs(np.subtract(a.index, b.index)).max() for n, a in enumerate(places) for b in places[:n]]
    assert min(apart) > 10
