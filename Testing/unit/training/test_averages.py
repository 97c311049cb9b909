"""Weight averages: closed forms, and averages made afterwards against those that were kept during the run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MedDiffFMLib.training.averages import (
    PowerAverage,
    averaged_state,
    combination,
    find_snapshots,
    gamma_of,
    save_snapshot,
)

STEPS = 300


class _Walk(torch.nn.Module):
    """A weight that drifts as in a training, and a counter that must not be averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def step(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.weight += 0.1 * torch.randn(5, generator=generator, dtype=torch.float64) + 0.01
        self.count += 1


@pytest.mark.parametrize("width", [0.03, 0.05, 0.1, 0.2, 0.28])
def test_the_profile_has_the_width_that_was_asked_for(width):
    time = (np.arange(200_000) + 0.5) / 200_000
    weight = time ** gamma_of(width)
    weight /= weight.sum()
    mean = (weight * time).sum()
    assert np.sqrt((weight * (time - mean) ** 2).sum()) == pytest.approx(width, rel=1e-4)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.29, 1.0])
def test_a_width_that_no_power_function_has_is_refused(width):
    with pytest.raises(ValueError, match="relative width"):
        gamma_of(width)


def test_weights_at_rest_stay_what_they_are():
    steps, widths = np.repeat(np.arange(50, 501, 50), 2), [0.05, 0.1] * 10
    for step in (250, 500):
        used = steps <= step
        for width in (0.04, 0.07, 0.15):
            shares = combination(steps[used], np.array(widths)[used], step, width)
            assert shares.sum() == pytest.approx(1, abs=1e-9)


def test_an_average_made_afterwards_is_the_one_that_a_run_would_have_kept(tmp_path):
    walk, generator = _Walk(), torch.Generator().manual_seed(0)
    kept = {width: PowerAverage(walk, width) for width in (0.05, 0.1)}
    wanted = {width: PowerAverage(walk, width) for width in (0.07, 0.15)}
    for step in range(STEPS):
        walk.step(generator)
        for average in (*kept.values(), *wanted.values()):
            average.update(walk, step)
        if (step + 1) % 15 == 0:
            for average in kept.values():
                save_snapshot(tmp_path, average, step + 1)
    snapshots = find_snapshots(tmp_path)
    assert len(snapshots) == 2 * STEPS // 15
    for width, average in wanted.items():
        made = averaged_state(snapshots, STEPS, width)
        error = (made["weight"] - average.module.weight.float()).abs().max()
        assert error < 0.01 * (walk.weight - average.module.weight).abs().max()  # half precision and few snapshots
        assert made["count"].dtype == torch.long
