"""Encoders: unit vectors, parts in their place, texts as sets of statements, and a file that gives the same again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.multimodal.aligned import AlignedEncoders, load_encoders, save_encoders
from MedDiffFMLib.multimodal.encoders import EDGE, KNOTS, PARTS, PIXELS, SIZE, cells_of
from MedDiffFMLib.multimodal.fact_encoder import FactEncoder
from MedDiffFMLib.multimodal.facts.fact import Statement
from MedDiffFMLib.multimodal.search import best_places, likeness_map
from MedDiffFMLib.multimodal.spoken_facts import prompt_facts


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


def test_cells_keep_what_their_voxels_hold() -> None:
    """The spread over the knots of a cell has the cell's mean, and cells come in the order of the parts."""
    box = torch.rand(1, 1, EDGE, EDGE, EDGE) * 2 - 1
    cells = cells_of(box, "ct")
    means = cells @ torch.tensor([float(knot) for knot in KNOTS["ct"]])
    assert torch.allclose(means.mean(2)[0, 1], box[0, 0, :8, :8, 8:16].mean(), atol=1e-5)
    assert torch.allclose(means[0, 0, 1], box[0, 0, :4, :4, 4:8].mean(), atol=1e-5)
    picture = torch.rand(1, 1, PIXELS, PIXELS) * 2 - 1
    means = cells_of(picture, "xray") @ torch.tensor([float(knot) for knot in KNOTS["xray"]])
    assert torch.allclose(means.mean(2)[0, 4], picture[0, 0, 16:32, :16].mean(), atol=1e-5)


def test_order_and_company_of_facts_do_not_matter(encoders: AlignedEncoders) -> None:
    one = [Statement("fat", dict(share=34)), Statement("bone", dict(share=5.0)), Statement("level", dict(level=31))]
    other = [Statement("contrast", dict(contrast="with"))]
    alone = encoders.text([one])[0]
    assert torch.allclose(alone, encoders.text([one[::-1]])[0], atol=1e-6)
    assert torch.allclose(alone, encoders.text([other, one, []])[1], atol=1e-6)
    assert bool(torch.isfinite(encoders.text([[]])).all())


def test_numbers_are_known_by_their_value(encoders: AlignedEncoders) -> None:
    said = encoders.text([[Statement("fat", dict(share=n))] for n in (34, 35, 80)])
    assert float(said[0] @ said[1]) > float(said[0] @ said[2])


def test_numbers_are_told_apart_where_the_training_had_them() -> None:
    """After measuring, the middle of what was said lies in the middle of the rows, and no number is out of range."""
    encoder = FactEncoder()
    encoder.measure([[Statement("lungs", dict(volume=n))] for n in range(1000, 3001)])
    weights = encoder.told([[Statement("lungs", dict(volume=n))] for n in (1, 2000, 90_000)]).weights[:, 0, 1:3]
    assert torch.allclose(weights, torch.tensor([[1.0, 0], [0.5, 0.5], [0, 1]]), atol=0.02)


def test_prompts_become_facts_and_the_rest_is_told() -> None:
    facts, told = prompt_facts("nodule in the right upper lobe, 5 mm slices, zebra")
    assert [(said.kind, said.values) for said in facts] == [("nodule", {"side": "right", "third": "upper third"})]
    assert told.startswith("Understood: nodule candidate: right, upper third. Not understood: slice spacing")
    assert told.endswith("zebra.")


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
