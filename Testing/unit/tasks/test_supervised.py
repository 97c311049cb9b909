"""The small denoiser: what it is worth on a CT it never saw, windows that leave no seam, loud noise, its file."""

import contextlib
import copy
import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import Cancelled, ModelError
from MedDiffFMLib.core.progress import CancelToken, ProgressMeter
from MedDiffFMLib.evaluation.quality.added_noise import ramp_noise
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.non_local_means import non_local_means
from MedDiffFMLib.inference.engine import Engine
from MedDiffFMLib.models.catalogue import resolve
from MedDiffFMLib.networks.folded_unet import REACH, FoldedUNet
from MedDiffFMLib.tasks.denoise import recipe, supervised
from MedDiffFMLib.tasks.denoise.spec import Denoise
from MedDiffFMLib.tasks.denoise.supervised import (
    Supervised,
    denoise_in_columns,
    in_stream,
    load_denoiser,
    save_denoiser,
    shipped_denoiser,
    without_noise,
)

SPACING = (2.5, 1.5, 1.5)


@pytest.fixture(scope="module")
def chest():
    """40 x 96 x 128 voxels of the sample CT, HU / 1000, with lungs, heart and wall; no scan that anything learned."""
    sample = read_volume(Path(__file__).parents[3] / "Resources" / "SampleData" / "thorax_lidc0001.nrrd")
    k, j, i = (n // 2 for n in sample.voxels.shape)
    return torch.from_numpy(sample.voxels[k - 20 : k + 20, j - 48 : j + 48, i - 64 : i + 64] / 1000).float()


def noisy_like(clean, sigma, kind="white"):
    depth, height, width = clean.shape
    white = np.random.default_rng(3).standard_normal((depth, height + 24, width + 24), dtype=np.float32)
    noise = ramp_noise(white, SPACING[::-1]) if kind == "ramp" else white
    return (clean + sigma * torch.from_numpy(noise[:, :height, :width])).clamp(-1.024, 3.071)


def error(image, clean):
    """Root mean square in soft tissue."""
    return float((image - clean)[clean.abs() < 0.2].square().mean().sqrt())


@pytest.mark.parametrize(("sigma", "kind"), [(0.03, "white"), (0.03, "ramp"), (0.15, "white"), (0.15, "ramp")])
def test_the_shipped_network_errs_less_than_non_local_means_that_are_told_the_level(chest, sigma, kind):
    noisy = noisy_like(chest, sigma, kind)
    means = torch.from_numpy(non_local_means(noisy.numpy(), sigma))
    assert error(without_noise(shipped_denoiser(), noisy, sigma, SPACING), chest) < 0.97 * error(means, chest)


@pytest.mark.parametrize("planes", [REACH + 1, 9, 40])
def test_planes_that_come_some_at_a_time_give_what_all_at_once_do(chest, planes):
    noisy = noisy_like(chest, 0.03)[:, 8:41, 24:90]
    whole = without_noise(shipped_denoiser(), noisy, 0.03, SPACING)
    passed, parts = in_stream(shipped_denoiser(), 0.03, SPACING), []
    for first in (0, *range(planes, len(noisy), 2)):
        stop = min(planes if first == 0 else first + 2, len(noisy))
        parts.append(passed(noisy[first:stop], stop == len(noisy)))
    assert torch.allclose(torch.cat(parts), whole, atol=2e-6)
    assert len(parts) == 1 or (len(parts[0]) == planes - REACH and len(parts[-1]) > REACH)


def test_a_result_depends_on_no_plane_farther_than_its_reach(chest):
    noisy = noisy_like(chest, 0.03)[:, :32, :32]
    changed = noisy.clone()
    changed[20] += 0.1
    one, other = (without_noise(shipped_denoiser(), image, 0.03, SPACING) for image in (noisy, changed))
    different = (one != other).flatten(1).any(1).nonzero()[:, 0]
    assert different.min() == 20 - REACH and different.max() == 20 + REACH


def test_columns_leave_no_seam_and_planes_none_at_all(chest, monkeypatch):
    noisy = noisy_like(chest, 0.03)
    whole = without_noise(shipped_denoiser(), noisy, 0.03, SPACING)
    passed = functools.partial(in_stream, shipped_denoiser(), 0.03, SPACING)
    assert torch.allclose(denoise_in_columns(noisy, passed)[whole > -0.8], whole[whole > -0.8], atol=2e-6)
    monkeypatch.setattr(supervised, "LONGEST", 88)
    begun = []
    in_parts = denoise_in_columns(noisy, lambda: begun.append(0) or passed())
    assert len(begun) == 2 * 3
    difference = 1000 * (in_parts - whole)[whole > -0.8].abs()
    # Every voxel lies near a seam here; the noise is 30 HU.
    assert difference.max() < 12 and difference.square().mean().sqrt() < 0.4


def test_a_body_in_two_parts_is_denoised_as_one(chest):
    """Planes of air between, too many to pass them: each part begins anew, and tissue is as if nothing was left out."""
    air = torch.full((30, *chest.shape[1:]), -1.0)
    image = torch.cat([noisy_like(chest, 0.03)[:12], air, noisy_like(chest, 0.03)[12:]])
    whole = without_noise(shipped_denoiser(), image, 0.03, SPACING)
    begun = []
    parts = denoise_in_columns(image, lambda: begun.append(0) or in_stream(shipped_denoiser(), 0.03, SPACING))
    assert len(begun) == 2
    inside = whole > -0.8
    assert torch.allclose(parts[inside], whole[inside], atol=2e-6)


def test_a_column_is_computed_again_where_memory_ran_out(chest):
    noisy, failures = noisy_like(chest, 0.03), iter([True])

    def passed():
        network, count = in_stream(shipped_denoiser(), 0.03, SPACING), iter(range(100))

        def planes(window, ends):
            if next(count) == 1 and next(failures, False):
                raise MemoryError
            return network(window, ends)

        return planes

    def attempt(compute):
        with contextlib.suppress(MemoryError):
            return compute()
        return compute()

    plain = denoise_in_columns(noisy, functools.partial(in_stream, shipped_denoiser(), 0.03, SPACING))
    meter = ProgressMeter(1)
    assert torch.equal(denoise_in_columns(noisy, passed, meter, attempt), plain)
    assert next(failures, None) is None and meter.done == pytest.approx(1)


def test_bfloat16_is_the_same_within_a_fraction_of_the_noise(chest):
    """Processors that compute it fast use it; float32 stays float32."""
    noisy = noisy_like(chest, 0.03)[None, None]
    condition = SimpleNamespace(spacing=SPACING)

    def by(precision):
        prior = torch.nn.Identity()
        prior.network = SimpleNamespace(config=SimpleNamespace(divisor=8))
        engine = Engine(prior, "cpu", precision)
        return Supervised(engine, shipped_denoiser()).denoise(noisy, 0.03, condition)

    exact, rounded = by("float32"), by("bfloat16")
    assert torch.equal(
        exact, denoise_in_columns(noisy[0, 0], lambda: in_stream(shipped_denoiser(), 0.03, SPACING))[None, None]
    )
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    assert (rounded - exact).square().mean().sqrt() < 0.04 * 0.03


def nothing(window, ends):
    return window


def test_air_alone_is_averaged_and_progress_reaches_its_end(chest):
    """Two pixels of air touch no tissue: their noise goes, too, and all columns together advance by one."""
    air = torch.full((8, 40, 40), -1.0) + 0.03 * torch.randn(8, 40, 40, generator=torch.Generator().manual_seed(0))
    seen = []
    meter = ProgressMeter(1, lambda event: seen.append(event.fraction))
    clean = denoise_in_columns(air, lambda: pytest.fail("the network looked at air"), meter)
    assert clean.std() < 0.2 * air.std() and seen[-1] == 1.0
    seen.clear()
    denoise_in_columns(chest, lambda: nothing, ProgressMeter(1, lambda event: seen.append(event.fraction)))
    assert seen[-1] == 1.0 and len(seen) > 2
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        denoise_in_columns(chest, lambda: nothing, ProgressMeter(1, None, token))


def test_air_beside_tissue_is_not_averaged_with_it():
    """A table that ends two rows before the field of view does, in which columns begin every eight rows."""
    image = torch.full((6, 50, 64), -1.0)
    image[:, 40:48, 8:56] = 0.1
    assert torch.equal(denoise_in_columns(image, lambda: nothing), image)


def test_an_untrained_network_changes_nothing_and_any_moves_with_the_image():
    torch.manual_seed(0)
    image, facts = torch.randn(1, 1, 5, 112, 136), torch.tensor([[-3.0, 0.3, 0.9]])
    network = FoldedUNet((4, 6, 8)).eval()
    assert torch.equal(network(image, facts), image)
    torch.nn.init.normal_(network.out.weight, std=0.1)
    moved = network(image.roll((8, 16), (3, 4)), facts).roll((-8, -16), (3, 4))
    inner = (slice(None), slice(None), slice(None), slice(56, 64), slice(64, 80))
    assert (network(image, facts) - image).abs().mean() > 1e-3
    assert torch.allclose(moved[inner], network(image, facts)[inner], atol=1e-5)


def test_the_file_comes_back_and_others_are_refused(tmp_path, chest):
    network, path = copy.deepcopy(shipped_denoiser()), tmp_path / "denoiser.safetensors"
    sha256 = save_denoiser(path, network, {"steps": 1})
    again = load_denoiser(path, sha256)
    one, other = (without_noise(n, chest[:4], 0.03, SPACING) for n in (network, again))
    assert torch.equal(one, other)
    with pytest.raises(ModelError, match="denoiser"):
        load_denoiser(resolve("anomaly-detector")[1])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError):
        load_denoiser(path)


def test_what_is_removed_does_not_depend_on_being_taken_from_the_scan_in_place(chest):
    """Blocks at the end continue the scan by reflection: planes must not change while these look at them."""
    noisy = noisy_like(chest, 0.03)
    clean = without_noise(shipped_denoiser(), noisy, 0.03, SPACING).clone()
    filters = recipe._Filters(Denoise(), 0.03, 8, 0.5, None)
    apart = noisy - torch.stack(list(filters.planes(noisy, clean.clone())))
    assert np.array_equal(filters.removed(noisy.clone(), clean), 1000 * apart.numpy())
