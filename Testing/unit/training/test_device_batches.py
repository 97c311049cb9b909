"""Windows made on a device: the same boxes, labels, holes and conditions as those that the CPU draws."""

from __future__ import annotations

import csv
import json
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import spsolve

from MedDiffFMLib.cli import main
from MedDiffFMLib.conditioning.biharmonic_batch import bend_batch
from MedDiffFMLib.conditioning.condition import ANATOMY_AT, CONTEXT_AT, TISSUE_AT
from MedDiffFMLib.conditioning.detail_bands import detail_bands
from MedDiffFMLib.conditioning.known_voxels import push_pull_fill
from MedDiffFMLib.core.errors import DeviceError
from MedDiffFMLib.datasets.prepare import build_case, prepare
from MedDiffFMLib.datasets.prepared_cases import Case, Level
from MedDiffFMLib.imaging.biharmonic import biharmonic_interpolation, biharmonic_system
from MedDiffFMLib.imaging.haar import haar_forward
from MedDiffFMLib.imaging.intensity import to_network
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.training.batches import Batch, TrainingWindows, collate
from MedDiffFMLib.training.device_cache import DeviceCache
from MedDiffFMLib.training.holes import draw_blobs, draw_hole
from MedDiffFMLib.training.noise import NoiseConfig, Texture, draw_level, draw_noise, draw_texture
from MedDiffFMLib.training.pretrain.device_batches import WindowMaker
from MedDiffFMLib.training.window_plans import PlannedWindows, collate_plans
from MedDiffFMLib.training.windows import LEVELS, PURPOSES, WindowConfig
from Testing.harness.pretend_gpu import can_pretend, pretend_gpu
from Testing.unit.phantoms import body

SIZE, COUNT = 16, 48
CONFIG = WindowConfig(size=SIZE)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def case_of(name: str, shape: tuple[int, int, int], spacing: tuple[float, ...], labels: bool) -> Case:
    """A phantom with two levels where it is fine enough; labels are the slices."""
    volume, steps = body(shape).voxels, np.array(spacing)
    slices = np.broadcast_to(np.arange(shape[0], dtype=np.uint8)[:, None, None], shape).copy()
    arrays, record = build_case(volume, steps, slices if labels else None)
    levels = tuple(
        Level(
            arrays[r["name"]],
            arrays[f"{r['name']}_anatomy"] if labels else None,
            *_geometry(r),
            arrays[f"{r['name']}_tissue"] if labels else None,
        )
        for r in record["levels"]
    )
    low, high = (np.array(edge) for edge in record["body_box"])
    return Case(name, name, "chest", levels, (low, high))


def _geometry(record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(record["spacing"]), np.array(record["origin"])


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Fine, thin (its windows are reflected) and coarse."""
    return [
        case_of("fine", (60, 70, 64), (1.2, 0.8, 0.8), True),
        case_of("thin", (9, 50, 60), (5.0, 1.5, 1.5), False),
        case_of("coarse", (30, 40, 44), (4.0, 4.0, 4.0), True),
    ]


def planned(cases: list[Case], config: WindowConfig, count: int, device: str = "cpu") -> Batch:
    """The first windows of a run, made on a device."""
    plans = PlannedWindows(cases, config, NoiseConfig(), 3, 100, 0, count)
    maker = WindowMaker(DeviceCache(cases, torch.device(device)), config.size)
    return maker.make(collate_plans([plans[n] for n in range(count)]))


def drawn(cases: list[Case], config: WindowConfig, count: int) -> Batch:
    """The same, as the CPU draws them."""
    windows = TrainingWindows(cases, config, 3, 0, count, NoiseConfig(), 100)
    return collate([windows[n] for n in range(count)])


def alike(a: Batch, b: Batch) -> list[int]:
    """Numbers of the windows that show the same, all but those whose first box showed hardly any body."""
    x0 = (a.x0.cpu() - b.x0).abs().flatten(1).amax(1)
    return torch.nonzero(x0 < 1e-4)[:, 0].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_a_device_makes_the_windows_that_the_cpu_draws(cases: list[Case], device: str) -> None:
    made, wanted = planned(cases, CONFIG, COUNT, device), drawn(cases, CONFIG, COUNT)
    same = alike(made, wanted)
    assert len(same) > 0.9 * COUNT and {wanted.purposes[n] for n in same} == set(PURPOSES)
    ours, theirs = made.condition.to("cpu"), wanted.condition
    assert made.purposes == wanted.purposes and torch.equal(ours.region[same], theirs.region[same])
    assert ours.hole is not None and theirs.hole is not None and torch.equal(ours.hole[same], theirs.hole[same])
    for part in (slice(0, CONTEXT_AT.start), TISSUE_AT):
        torch.testing.assert_close(ours.channels[same, part], theirs.channels[same, part], atol=1e-5, rtol=0)
    assert all(ours.channels[same, part].amax() == 1 for part in (ANATOMY_AT, TISSUE_AT)), "labels are shown"
    plain = [n for n in same if wanted.purposes[n] != "fill"]
    assert not ours.channels[plain, CONTEXT_AT].any() and not ours.expected[plain].any()  # type: ignore[index]
    assert made.sigma is not None and torch.equal(made.sigma.cpu(), wanted.sigma)  # type: ignore[arg-type]


@pytest.mark.slow
def test_what_is_told_about_a_hole_is_what_the_cpu_tells(cases: list[Case]) -> None:
    config = WindowConfig(size=32, fill_share=1.0, denoise_share=0.0)
    made, wanted = planned(cases, config, 24), drawn(cases, config, 24)
    same = alike(made, wanted)
    ours, theirs = made.condition, wanted.condition
    assert ours.expected is not None and theirs.expected is not None and theirs.hole is not None
    off = 1000 * (ours.expected - theirs.expected)[same]
    hole = theirs.hole[same]
    assert not off[hole == 0].abs().max() > 0.1, "known voxels are as they are"
    errors = (off.square() * hole).sum((1, 2, 3, 4)).div(hole.sum((1, 2, 3, 4))).sqrt()
    assert errors.median() < 2 and errors.max() < 15, "HU; the guess itself errs by a hundred"
    share = CONTEXT_AT.stop - 1
    assert (ours.channels - theirs.channels)[same, share].abs().max() < 1e-6, "the share of known voxels"


@pytest.mark.slow
@pytest.mark.parametrize(("iterations", "hounsfield"), [(4, 10.0), (20, 0.3)])
def test_the_first_guess_bends_least(iterations: int, hounsfield: float) -> None:
    """Against a direct solution in float64, on thick slices too; the CPU's is close to both."""
    rng, shape = np.random.default_rng(0), (32, 32, 32)
    spacings = [(1.0, 1.0, 1.0), (5.0, 0.8, 0.8), (1.5, 3.0, 3.0)]
    holes = [draw_blobs(rng).mask(shape), draw_hole(shape, rng).mask(shape), draw_blobs(rng).mask(shape)]
    image = to_network(body(shape).voxels)
    found = bend_batch(
        torch.from_numpy(np.stack([image] * 3)),
        torch.from_numpy(np.stack(holes)).float(),
        torch.tensor(spacings),
        iterations,
    ).numpy()
    for hole, (k, j, i), ours in zip(holes, spacings, found, strict=True):
        exact = spsolve(*biharmonic_system(image.astype(np.float64), hole, (i, j, k)))
        start = push_pull_fill(torch.from_numpy(image), torch.from_numpy(hole).float()).numpy()
        theirs = biharmonic_interpolation(image, hole, start, (i, j, k))
        exact = np.clip(exact, theirs[hole].min(), theirs[hole].max())
        for other in (exact, theirs[hole]):
            assert 1000 * np.sqrt(np.mean((ours[hole] - other) ** 2)) < hounsfield
        np.testing.assert_array_equal(ours[~hole], image[~hole])


@pytest.mark.slow
def test_shares_hounsfield_holes_and_noise_are_those_of_the_cpu(cases: list[Case]) -> None:
    """Of other windows than those that the CPU draws: what is drawn has the same distribution."""
    count = 300
    plans = PlannedWindows(cases, CONFIG, NoiseConfig(), 77, 10**6, 0, count)
    maker = WindowMaker(DeviceCache(cases, torch.device("cpu")), SIZE)
    samples = [plans[n] for n in range(count)]
    made, wanted = maker.make(collate_plans(samples)), drawn(cases, CONFIG, count)
    shares = Counter(s.plan.purpose for s in samples)
    assert all(abs(shares[p] / count - w) < 0.09 for p, w in zip(PURPOSES, (0.3, 0.35, 0.35), strict=True))
    assert set(Counter(s.plan.level for s in samples)) == set(LEVELS)
    edges = [-1.01, -0.9, -0.2, 0.0, 0.1, 0.4, 1.01]
    ours, theirs = (np.histogram(b.x0.numpy(), edges)[0] / b.x0.numel() for b in (made, wanted))
    assert np.abs(ours - theirs).max() < 0.04
    volumes = [float(b.condition.hole[b.condition.has_hole()].mean()) for b in (made, wanted)]  # type: ignore[index]
    assert abs(volumes[0] - volumes[1]) < 0.04
    textures = [spectrum(b) for b in (made, wanted)]
    assert textures[0] == pytest.approx(textures[1], rel=0.12) and max(textures[0]) > 1.5 * min(textures[0])


def spectrum(batch: Batch) -> list[float]:
    """Mean strength in each band of the noise of windows for denoising; those of white noise are 1."""
    assert batch.noise is not None
    chosen = [n for n, purpose in enumerate(batch.purposes) if purpose == "denoise"]
    bands = detail_bands(haar_forward(batch.noise[chosen]))
    return bands.square().mean(dim=(2, 3, 4)).sqrt().mean(0).tolist()


def test_textures_are_the_cpus_where_the_white_noise_is() -> None:
    config = NoiseConfig(ct_texture_share=1.0)
    generators = [torch.Generator().manual_seed(n) for n in range(6)]
    one_by_one = [draw_noise((1, 16, 16, 16), "denoise", config, generator)[1] for generator in generators]
    whites, textures = [], []
    for n in range(6):
        generator = torch.Generator().manual_seed(n)
        draw_level("denoise", config, generator)
        whites.append(torch.randn((1, 16, 16, 16), generator=generator))
        texture = draw_texture("denoise", config, generator)
        assert texture is not None
        textures.append(texture)
    fields = ("cutoff", "axial", "angle", "stretch", "strength")
    together = Texture(*(torch.cat([getattr(t, field) for t in textures]) for field in fields))
    torch.testing.assert_close(together.given_to(torch.cat(whites))[:, None], torch.stack(one_by_one))


def test_a_window_does_not_depend_on_how_batches_are_divided(cases: list[Case]) -> None:
    plans = PlannedWindows(cases, CONFIG, NoiseConfig(), 3, 100, 0, 8)
    maker = WindowMaker(DeviceCache(cases, torch.device("cpu")), SIZE)
    whole = maker.make(collate_plans([plans[n] for n in range(8)]))
    tail = maker.make(collate_plans([PlannedWindows(cases, CONFIG, NoiseConfig(), 3, 100, 4, 4)[n] for n in range(4)]))
    assert whole.noise is not None and tail.noise is not None
    torch.testing.assert_close(whole.x0[4:], tail.x0)
    torch.testing.assert_close(whole.noise[4:], tail.noise)
    assert whole.purposes[4:] == tail.purposes


@pytest.mark.slow
@pytest.mark.skipif(not can_pretend(), reason="no GPU can be pretended here")
def test_a_gpu_is_given_its_windows_without_being_waited_for(cases: list[Case]) -> None:
    wanted = planned(cases, CONFIG, 8)
    plans = PlannedWindows(cases, CONFIG, NoiseConfig(), 3, 100, 0, 8)
    batch = collate_plans([plans[n] for n in range(8)])
    with pretend_gpu() as gpu:
        maker = WindowMaker(DeviceCache(cases, torch.device("cuda:0")), SIZE)
        waits = gpu.waits
        made = maker.make(batch)
        assert made.x0.device.type == "cuda" and gpu.waits == waits
        found = [made.x0.cpu(), made.noise.cpu(), made.condition.to("cpu").channels]  # type: ignore[union-attr]
    for ours, theirs in zip(found, (wanted.x0, wanted.noise, wanted.condition.channels), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    with pretend_gpu(memory=10**6), pytest.raises(DeviceError, match="0.0 GB"):
        DeviceCache(cases, torch.device("cuda:0"))


# Training


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases to train on."""
    folder = tmp_path_factory.mktemp("cts")
    write_volume(body(spacing=2.0), folder / "ball.nrrd")
    write_volume(body((30, 40, 40)), folder / "other.nrrd")
    (folder / "datalist.json").write_text(json.dumps({"training": ["ball.nrrd", "other.nrrd"], "validation": []}))
    prepare(folder / "datalist.json", folder / "cache")
    return folder / "cache"


def train(cache: Path, folder: Path, *more: str) -> list[float]:
    """Losses of a run."""
    command = ["pretrain", str(cache), "-o", str(folder), "--channels", "8", "32", "--window", "16", "--batch", "4",
               "--accelerator", "cpu", "--steps", "24", "--learning-rate", "0.001", "--checkpoint-every", "1",
               "--averages", *more]  # fmt: skip
    torch.set_num_threads(1)
    main(command)
    with open(folder / "losses.csv") as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def losses(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Of a whole run with windows made on the device."""
    return train(cache, tmp_path_factory.mktemp("device") / "run", "--windows-on-device")


@pytest.mark.slow
def test_a_run_learns_what_one_with_the_cpus_windows_learns(cache: Path, losses: list[float], tmp_path: Path) -> None:
    """Step by step the same windows, noise levels and holes: nearly the same losses."""
    ours, theirs = losses, train(cache, tmp_path / "cpu")
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95 and np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.05)


@pytest.mark.slow
def test_a_stopped_run_continues_on_the_same_curve(cache: Path, losses: list[float], tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    with mock.patch("MedDiffFMLib.training.loop.TrainingLoop._any_process_stops", lambda loop: loop.step == 19):
        assert len(train(cache, folder, "--windows-on-device")) == 19
    assert train(cache, folder, "--windows-on-device", "--workers", "1") == losses


@pytest.mark.slow
@pytest.mark.skipif(not can_pretend(), reason="no GPU can be pretended here")
def test_a_run_on_a_gpu_has_the_losses_of_one_on_the_cpu(cache: Path, tmp_path: Path) -> None:
    from MedDiffFMLib.training.fabric import Fabric  # seconds, which the quick tests are spared

    fabric = Fabric.__module__.rpartition(".")[0]
    strategies, accelerators = (import_module(f"{fabric}.{name}") for name in ("strategies", "accelerators"))

    class Accelerator(accelerators.CPUAccelerator):
        """One that takes a GPU that no driver knows."""

        def setup_device(self, device: torch.device) -> None:
            pass

    options = ("--windows-on-device", "--steps", "4", "--float32")
    expected = train(cache, tmp_path / "cpu", *options)
    with pretend_gpu(autograd=True) as gpu:
        strategy = strategies.SingleDeviceStrategy(torch.device("cuda:0"), Accelerator())
        with mock.patch("MedDiffFMLib.training.pretrain.run.launch", lambda *choice: Fabric(strategy=strategy)):
            found = train(cache, tmp_path / "gpu", *options)
        assert gpu.peak > 2**20
    assert found == pytest.approx(expected, rel=1e-3)
