"""What the network is told: position, scale, anatomy, region; and how little is invented when one is unknown."""

import numpy as np
import pytest
import torch

from MedDiffFMLib.conditioning.anatomy import encode_anatomy
from MedDiffFMLib.conditioning.condition import CONDITION_CHANNELS, Condition
from MedDiffFMLib.conditioning.position import POSITION_CHANNELS, encode_position
from MedDiffFMLib.conditioning.region import body_box, body_mask, guess_region
from MedDiffFMLib.conditioning.regions import NULL_REGION
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.grid import working_grid
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.preprocessing.body_localization import choose_region, localize_body


def phantom(shape, spacing, lungs=False, bone=0.03, width=0.9):
    """Elliptic body of soft tissue in air; lungs and bone as shares of its area."""
    k, j, i = shape
    y, x = np.mgrid[:j, :i]
    radius = np.hypot((y - j / 2) / (j / 2 * 0.8), (x - i / 2) / (i / 2 * width))
    plane = np.where(radius < 1, 40.0, -1000.0)
    if lungs:
        plane[(radius < 0.75) & (np.abs(x - i / 2) > i * 0.08)] = -800.0
    plane[(radius < bone**0.5)] = 600.0
    return np.repeat(plane[None], k, 0).astype(np.float32)


@pytest.mark.parametrize(
    ("expected", "shape", "options"),
    [
        ("chest", (100, 90, 120), {"lungs": True}),
        ("abdomen", (80, 90, 120), {}),
        ("pelvis", (80, 90, 120), {"bone": 0.1}),
        ("head-neck", (70, 75, 65), {"bone": 0.15}),
        ("whole-body", (230, 90, 120), {}),
        (None, (30, 30, 30), {}),
    ],
)
def test_region_is_guessed_from_what_the_slices_hold(expected, shape, options):
    image = phantom(shape, 3.0, **options)
    assert guess_region(image, (3.0, 3.0, 3.0), body_mask(image)) == expected


def test_a_wish_beats_the_guess_and_a_wrong_one_is_named():
    found = localize_body(Volume(phantom((80, 90, 120), 3.0), np.diag([-3.0, -3.0, 3.0, 1.0])))
    assert found.guessed == "abdomen"
    assert choose_region(None, found) == "abdomen"
    assert choose_region("chest", found) == "chest"
    assert choose_region("none", found) is None
    with pytest.raises(InputError, match="thigh"):
        choose_region("thigh", found)


def test_body_mask_fills_the_lungs_and_drops_the_table():
    image = phantom((20, 90, 120), 3.0, lungs=True)
    image[:, 86:88, 10:110] = 100.0
    body = body_mask(image)
    assert body[10, 45, 30] and not body[10, 87, 60]
    low, high = body_box(body)
    assert low[1] >= 8 and high[1] <= 82


@pytest.mark.parametrize("flip", [(1, 1), (-1, 1), (1, -1)])
def test_coordinates_follow_the_patient_not_the_array(flip):
    """A volume stored upside down or mirrored has the same body coordinates at the same place of the patient."""
    image = phantom((40, 90, 120), 3.0)
    image[:20, :, :60] += 0.0
    plain = Volume(image, np.diag([-3.0, -3.0, 3.0, 1.0]))
    matrix = plain.ijk_to_ras.copy()
    voxels = image
    if flip[0] < 0:
        matrix[:3, 3] += matrix[:3, 0] * (image.shape[2] - 1)
        matrix[:3, 0] *= -1
        voxels = voxels[:, :, ::-1]
    if flip[1] < 0:
        matrix[:3, 3] += matrix[:3, 2] * (image.shape[0] - 1)
        matrix[:3, 2] *= -1
        voxels = voxels[::-1]
    other = Volume(np.ascontiguousarray(voxels), matrix)
    expected = localize_body(plain).coordinates(working_grid(plain, None))
    found = localize_body(other).coordinates(working_grid(other, None))
    for a, b in zip(expected, found, strict=True):
        assert np.allclose(a, b, atol=1e-5)
    assert expected[1][0] < -1 < expected[1][45] < 1 < expected[1][-1]


def test_anatomy_bits_are_the_binary_number_and_keep_the_boundary():
    labels = torch.zeros(4, 4, 4, dtype=torch.uint8)
    labels[:, :, 1:] = 118
    channels = encode_anatomy(labels)
    assert channels.shape == (8, 2, 2, 2)
    bits = [(118 >> b) & 1 for b in range(7)]
    assert channels[:7, 0, 0, 1].tolist() == bits
    assert channels[:7, 0, 0, 0].tolist() == [b / 2 for b in bits]
    assert (channels[7] == 1).all()


def test_unknown_conditions_are_zeros():
    channels = Condition((1.5, 1.5, 1.5)).encode((8, 8, 8)).channels
    assert channels.shape == (1, CONDITION_CHANNELS, 4, 4, 4)
    assert not channels.any()
    assert Condition((1.5, 1.5, 1.5)).encode((8, 8, 8)).region.item() == NULL_REGION


def test_a_window_of_the_condition_is_the_condition_of_the_window():
    line = torch.linspace(-1, 1, 16)
    anatomy = torch.randint(0, 119, (16, 16, 16), dtype=torch.uint8)
    whole = Condition((1.0, 2.0, 3.0), (line, line, line), 1, anatomy)
    box = (slice(2, 10), slice(4, 12), slice(8, 16))
    cut = tuple(slice(s.start // 2, s.stop // 2) for s in box)
    part = whole.window(box).encode((8, 8, 8)).channels
    assert torch.allclose(part, whole.encode((16, 16, 16)).channels[(slice(None), slice(None), *cut)])


def test_position_encoding_tells_places_apart():
    line = torch.linspace(-1, 1, 32)
    channels = encode_position(line, line, line).reshape(POSITION_CHANNELS, -1)
    apart = torch.cdist(channels.T[::997], channels.T[::997])
    assert apart.fill_diagonal_(1).min() > 0.05
