"""Fixtures that all tests share: a small CT, files of it, and a tiny model with random weights."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small arrays: a second thread costs more than it gives

import numpy as np
import pytest

from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume


def _inside(shape: tuple[int, int, int], center: tuple[float, ...], radius: tuple[float, ...]) -> np.ndarray:
    """Ellipsoid; center and radius (k, j, i) as fractions of the shape."""
    axes = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, center, radius, strict=True)) < 1


@pytest.fixture(scope="session", autouse=True)
def own_models(tmp_path_factory: pytest.TempPathFactory):
    """An empty folder of own models, so that those of whoever runs the tests are neither seen nor touched."""
    folder = tmp_path_factory.mktemp("own-models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDDIFFFM_MODELS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def one_thread():
    """Sums in the same order every time, also in child processes, which compute with one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_ct() -> Volume:
    """Chest-like int16 CT, 40 x 48 x 44 (k, j, i) of 3 mm: body, fat, two lungs, a spine, a nodule; noise of 20 HU.

    The origin is not zero and the axes are flipped as scanners write them.
    """
    shape = (40, 48, 44)
    hounsfield = np.full(shape, -1000.0)
    for center, radius, value in (
        ((0.5, 0.5, 0.5), (0.9, 0.42, 0.46), -90.0),  # fat
        ((0.5, 0.5, 0.5), (0.9, 0.38, 0.42), 45.0),  # muscle
        ((0.5, 0.45, 0.3), (0.4, 0.22, 0.13), -850.0),  # lungs
        ((0.5, 0.45, 0.7), (0.4, 0.22, 0.13), -850.0),
        ((0.5, 0.78, 0.5), (0.9, 0.08, 0.08), 500.0),  # spine
        ((0.5, 0.45, 0.3), (0.1, 0.08, 0.08), 30.0),  # nodule
    ):
        hounsfield[_inside(shape, center, radius)] = value
    hounsfield += np.random.default_rng(7).normal(0, 20, shape)
    ijk_to_ras = np.diag([-3.0, -3.0, 3.0, 1.0])
    ijk_to_ras[:3, 3] = (66, 40, -250)
    return Volume(np.rint(np.clip(hounsfield, -1024, 3071)).astype(np.int16), ijk_to_ras)


@pytest.fixture(scope="session")
def small_mask(small_ct: Volume) -> Volume:
    """Label map of the nodule in ``small_ct``, with a rim."""
    nodule = _inside(small_ct.voxels.shape, (0.5, 0.45, 0.3), (0.13, 0.11, 0.11))  # type: ignore[arg-type]
    return Volume(nodule.astype(np.uint8), small_ct.ijk_to_ras, "mask")


@pytest.fixture(scope="session")
def small_ct_file(small_ct: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small_ct`` as NRRD."""
    path = tmp_path_factory.mktemp("ct") / "chest.nrrd"
    write_volume(small_ct, path)
    return path


@pytest.fixture(scope="session")
def small_mask_file(small_mask: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small_mask`` as NRRD."""
    path = tmp_path_factory.mktemp("mask") / "nodule.nrrd"
    write_volume(small_mask, path, mask=True)
    return path


@pytest.fixture(scope="session")
def tiny_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real weight file with a network so small that a run takes a moment; random weights, made-up calibration."""
    import torch

    from MedDiffFMLib.models.checkpoint import build_denoiser, save_model
    from MedDiffFMLib.networks.unet import NetworkConfig
    from MedDiffFMLib.tasks.anomaly.z_score import CLASSES

    network = NetworkConfig(channels=(8, 32), attention=(False, False))
    config = {"network": network.as_dict(), "denoiser": "edm"}
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    levels = {"24": {"all": {"centre": [0.0] * CLASSES, "spread": [100.0] * CLASSES}}}
    calibration = {"spacing": 3.0, "sets": 1, "smoothing": 3.0, "levels": levels}
    save_model(path, build_denoiser(config).state_dict(), config, calibration)
    return path
