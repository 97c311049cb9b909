"""Probabilities of heads are brought to frequencies, without moving an outline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from MedDiffFMLib.conditioning.condition import Condition
from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.core.progress import ProgressMeter
from MedDiffFMLib.datasets.labels import label_table
from MedDiffFMLib.evaluation.quality.uncertainty import reliability
from MedDiffFMLib.preprocessing.body_coordinates import UNKNOWN
from MedDiffFMLib.segmentation.calibration import LogitCounts, calibrated, scaled
from MedDiffFMLib.segmentation.head_file import complete_head, read_head, save_head
from MedDiffFMLib.segmentation.inputs import LabeledInput, SegmentationInput
from MedDiffFMLib.segmentation.method import InferenceBudget, Prediction, Segmenter
from MedDiffFMLib.segmentation.outline import BEST, HALF
from MedDiffFMLib.training.finetune.segmentation_calibration import from_validation


def too_sure(temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (1, D, H, W) whose logits are so many times too large, and masks drawn from the true ones."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 2, (1, 40, 50, 50))
    truth = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    return torch.from_numpy(logits * temperature).float().sigmoid(), torch.from_numpy(truth).float()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_and_makes_frequencies(temperature: float) -> None:
    probabilities, truth = too_sure(temperature)
    counts = LogitCounts(1)
    for part in (slice(0, 15), slice(15, 40)):  # two cases
        counts.add(probabilities[:, part], truth[:, part], [True])
    found = counts.temperatures()
    assert found[0] == pytest.approx(temperature, rel=0.05)
    after = scaled(probabilities, found)
    assert reliability(after.numpy(), truth.numpy() > 0.5).error < 0.01
    assert torch.equal(after > 0.5, probabilities > 0.5)


def test_a_class_that_no_case_shows_stays_as_it_is() -> None:
    probabilities, truth = too_sure(3.0)
    counts = LogitCounts(2)
    counts.add(probabilities.expand(2, -1, -1, -1), truth.expand(2, -1, -1, -1), [True, False])
    assert counts.temperatures()[1] == 1.0


def test_uncertainty_follows_probability_but_not_where_it_was_sampled() -> None:
    p = too_sure(3.0)[0]
    coin, sampled = calibrated(Prediction(p, (p * (1 - p)).sqrt()), [3.0]), calibrated(Prediction(p, 0.3 * p), [3.0])
    assert torch.allclose(coin.uncertainty, (coin.probabilities * (1 - coin.probabilities)).sqrt())
    assert torch.equal(sampled.uncertainty, 0.3 * p) and torch.equal(sampled.probabilities, coin.probabilities)


class Says(Segmenter):
    """What a network says, whatever it sees."""

    def __init__(self, probabilities: torch.Tensor) -> None:
        super().__init__()
        self.probabilities = probabilities

    def predict(
        self, inputs: SegmentationInput, budget: InferenceBudget, meter: ProgressMeter | None = None
    ) -> Prediction:
        return Prediction(self.probabilities, torch.zeros(self.probabilities.shape))


@pytest.mark.parametrize(("shift", "way"), [(0.0, BEST), (3.0, HALF)])
def test_patients_that_were_not_learned_from_tell_the_way_to_outline(shift: float, way: str) -> None:
    """Who doubts rightly marks more from a lower threshold on, who is too sure marks too much there."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-3, 1.5, (1, 20, 40, 40))
    truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits)))[0]
    inputs = SegmentationInput(np.zeros(truth.shape, np.int16), Condition((2.0, 2.0, 2.0)), UNKNOWN)
    example = LabeledInput("a", inputs, truth.astype(np.uint8), (True,))
    said = Says(torch.from_numpy(logits + shift).float().sigmoid())
    assert from_validation(said, [example], InferenceBudget(torch.device("cpu"))).outline == way


def test_temperatures_travel_in_the_file_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    path, labels = tmp_path / "head.safetensors", label_table({1, 2}, {})
    save_head(path, nn.Linear(2, 2), method="features", options={}, labels=labels, spacing=2.0,
              prior={"name": "a", "sha256": "0" * 64})  # fmt: skip
    assert "temperature" not in read_head(path)
    complete_head(path, temperatures=[1.5, 2.0], source="2 validation cases", outline=BEST)
    assert read_head(path)["temperature"] == {"values": [1.5, 2.0], "source": "2 validation cases"}
    complete_head(path, temperatures=[1.5], source="too few", outline=BEST)
    with pytest.raises(ModelError, match="damaged description"):
        read_head(path)
