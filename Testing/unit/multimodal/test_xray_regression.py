"""Regression of chest X-rays: it corrects a consistent image, knows its views, and comes back from its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.multimodal.xray_consistency import XrayConsistency
from MedDiffFMLib.multimodal.xray_regression import (
    XrayRegression,
    expected_chest,
    frontal_and_lateral,
    load_regression,
    regression_input,
    save_regression,
    shipped_regression,
)
from Testing.experiments.xray_regression import mirrored, xrays_of


@pytest.fixture(scope="module")
def trunk() -> Volume:
    """An elliptic trunk with two lungs on voxels of 6 mm."""
    k, j, i = (6.0 * (np.arange(n) - (n - 1) / 2) for n in (46, 40, 58))
    s, a, r = k[:, None, None], j[None, :, None], i[None, None]
    voxels = np.where((r / 150) ** 2 + (a / 100) ** 2 + 0 * s < 1, 20.0, -1000.0)
    for side in (-65, 65):
        voxels[((r - side) / 50) ** 2 + (a / 65) ** 2 + (s / 110) ** 2 < 1] = -850
    return Volume(voxels.astype(np.float32), np.diag([-6.0, -6.0, 6.0, 1.0]))


@pytest.mark.slow
def test_xrays_laid_back_show_the_lungs(trunk: Volume) -> None:
    hull, consistency = xrays_of(trunk)
    assert frontal_and_lateral(consistency) == (0, 1)
    swapped = XrayConsistency(consistency.views[::-1], hull.grid, consistency.support)
    assert frontal_and_lateral(swapped) == (1, 0)
    one = XrayConsistency(consistency.views[:1], hull.grid, consistency.support)
    assert frontal_and_lateral(one) is None and expected_chest(XrayRegression(), hull, one) is None

    known, other = (regression_input(hull, c, v)[0] for c, v in ((consistency, (0, 1)), (swapped, (1, 0))))
    assert torch.allclose(known, other, atol=1e-3)  # the order in which X-rays are given does not matter
    k, j, i = (n // 2 for n in known.shape[1:])
    lung = i - round(65 / 8)
    frontal, lateral = known[1], known[2]
    assert float(frontal[k, j, lung]) < 0.6 * float(frontal[k, j, i])  # a ray beside the spine passes a lung
    assert abs(float(lateral[k, j, lung]) - float(lateral[k, j, i])) < 0.1  # one from the side passes both
    begun = expected_chest(XrayRegression(), hull, consistency)
    assert begun is not None and begun.shape == hull.grid.shape and float(begun[~consistency.support].max()) == -1


@pytest.mark.slow
def test_a_mirrored_input_is_that_of_the_mirrored_scene(trunk: Volume) -> None:
    """Body and X-rays change sides, the lines that tell the place do not."""
    known = regression_input(*xrays_of(trunk, 8.0), (0, 1))
    turned = mirrored(known)
    assert torch.equal(mirrored(turned), known)
    assert torch.equal(turned[:, :6], known[:, :6].flip(-1))
    step = known.diff(dim=-1)[:, -1]
    assert torch.allclose(turned.diff(dim=-1)[:, -1], step, atol=1e-4) and float(step.min()) > 0


def test_weights_come_back_and_others_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = XrayRegression()
    torch.nn.init.normal_(network.out.weight)
    path = tmp_path / "xrays.safetensors"
    digest = save_regression(path, network, {"steps": 3})
    known = torch.randn(1, 7, 6, 9, 11)
    with torch.no_grad():
        assert torch.allclose(load_regression(path, digest)(known), network(known), atol=0.05)
    with pytest.raises(ModelError):
        load_regression(Path(shipped_path("anomaly-detector")))


def shipped_path(name: str) -> Path:
    from MedDiffFMLib.models.catalogue import resolve

    return resolve(name)[1]


@pytest.mark.slow
def test_shipped_weights_put_lungs_where_lungs_are(trunk: Volume) -> None:
    hull, consistency = xrays_of(trunk)
    image = expected_chest(shipped_regression(), hull, consistency)
    assert image is not None
    k, j, i = (n // 2 for n in image.shape)
    lung = i - round(65 / 4)
    assert float(image[k, j, lung]) < float(image[k, j, i]) - 0.3
