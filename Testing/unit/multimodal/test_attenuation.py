"""Attenuation of water and bone against Beer and Lambert's law."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MedDiffFMLib.imaging.formats.png import write_png
from MedDiffFMLib.multimodal.attenuation import (
    BONE,
    CT_KEV,
    SPECTRUM,
    WATER,
    attenuation,
    densities,
    mass_attenuation,
)


def test_with_the_scanners_energy_the_hounsfield_units_alone_decide() -> None:
    hounsfield = torch.tensor([-1024, -1000, -700, -100, 0, 60, 100, 101, 300, 1200, 1594, 2500, 3071.0]).double()
    lost = attenuation(densities(hounsfield), {CT_KEV: 1.0})
    water = mass_attenuation(WATER, CT_KEV)
    assert lost.numpy() == pytest.approx(water * np.maximum(1 + hounsfield.numpy() / 1000, 0), rel=1e-9, abs=1e-12)


def test_slabs_in_closed_form() -> None:
    water, bone = 20.0, 3.0  # g/cm2
    shares = np.array(list(SPECTRUM.values()))
    rates = [mass_attenuation(WATER, kev) * water + mass_attenuation(BONE, kev) * bone for kev in SPECTRUM]
    truth = -np.log((shares / shares.sum() * np.exp(-np.array(rates))).sum())
    lost = attenuation(torch.tensor([[[water]], [[bone]]]).double())
    assert float(lost) == pytest.approx(truth, rel=1e-12)


def test_the_tables_own_energies_and_a_hardened_beam() -> None:
    assert mass_attenuation(BONE, 60.0) == pytest.approx(0.3148)
    assert mass_attenuation(BONE, 80.0) < mass_attenuation(BONE, 70.0) < mass_attenuation(BONE, 60.0)
    thin, thick = (float(attenuation(torch.tensor([[[0.0]], [[g]]]).double())) for g in (1.0, 8.0))
    assert thick < 8 * thin  # each centimeter takes less than the one before


def test_a_png_has_sixteen_bits_a_window_and_a_scale(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "ap.png"
    pixels = np.linspace(-1, 3, 512, dtype=np.float32).reshape(16, 32)
    write_png(path, pixels, (0.0, 2.0), 0.5, "Calculated")
    with Image.open(path) as image:
        gray = np.asarray(image)
        assert image.info["dpi"][0] == pytest.approx(50.8, rel=1e-3) and image.info["Description"] == "Calculated"
    assert gray.shape == (16, 32) and gray.max() == 65535 and gray.min() == 0
    assert gray / 65535 * 2 == pytest.approx(np.clip(pixels, 0, 2), abs=2e-5)
