"""What runs on a GPU gives what the CPU gives, keeps to its memory and does not make it wait; on a pretend GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedDiffFMLib.conditioning.condition import Condition
from MedDiffFMLib.core.devices import choose_device, is_fast_in_bfloat16
from MedDiffFMLib.core.errors import DeviceError, InputError, tells_of_memory
from MedDiffFMLib.core.precision import autocast, choose_precision
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.datasets.labels import SegmentLabel
from MedDiffFMLib.diffusion.controlled_denoiser import with_control
from MedDiffFMLib.evaluation.speed.cases import Case as SpeedCase
from MedDiffFMLib.evaluation.speed.implementations import Engine as EngineSubject
from MedDiffFMLib.evaluation.speed.implementations import Settings as SubjectSettings
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.inference.engine import WINDOW, Engine, is_out_of_memory
from MedDiffFMLib.inference.memory_plan import plan_memory
from MedDiffFMLib.inference.sliding_window import SlidingWindowDenoiser
from MedDiffFMLib.models.checkpoint import FoundationModel, build_denoiser, load_model, save_model
from MedDiffFMLib.models.controlnet_file import save_control
from MedDiffFMLib.networks.unet import NetworkConfig
from MedDiffFMLib.runner.case import LoadedCase, compute
from MedDiffFMLib.runner.report import machine
from MedDiffFMLib.runner.settings import RunSettings
from MedDiffFMLib.segmentation.head_file import save_head
from MedDiffFMLib.segmentation.method import make_method, options_of
from MedDiffFMLib.tasks.anomaly.z_score import CLASSES
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.inputs import NONE
from MedDiffFMLib.tasks.registry import TASKS
from MedDiffFMLib.training.finetune.registry import finetune_task
from MedDiffFMLib.worker.server import _free_memory, describe_process
from Testing.harness.pretend_gpu import NAME, can_pretend, pretend_gpu

pytestmark = pytest.mark.skipif(not can_pretend(), reason="no GPU can be pretended here")

SMALL = 24
CONFIG = {
    "network": NetworkConfig(channels=(8, 32), attention=(False, False)).as_dict(),
    "denoiser": "edm",
    "window": 16,
}
HEADS: dict[str, dict[str, Any]] = {
    "features": {"window": 16},
    "unet": {"window": 16},
    "dynunet": {"window": 16, "filters": [4, 8, 8]},
    "medsegdiff": {"window": 16, "channels": [8, 8, 8], "steps": 2, "draws": 2},
}


def shake(module: torch.nn.Module, size: float = 0.05) -> None:
    """No weight is zero: a fresh network ends in zeros, and all its results would be alike."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight += size * torch.randn(weight.shape, generator=generator)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A prior, two ControlNets and a head of each method, with random weights."""
    folder = tmp_path_factory.mktemp("gpu")
    found = {name: str(folder / f"{name}.safetensors") for name in ("prior", "lesion", "super-resolution", *HEADS)}
    torch.manual_seed(0)
    prior = build_denoiser(CONFIG)
    shake(prior)
    levels = {"24": {"all": {"centre": [0.0] * CLASSES, "spread": [100.0] * CLASSES}}}
    calibration = {"spacing": 3.0, "sets": 1, "smoothing": 3.0, "levels": levels}
    digest = save_model(Path(found["prior"]), prior.state_dict(), CONFIG, calibration)
    named = {"name": "prior", "sha256": digest}
    for task in ("lesion", "super-resolution"):
        controlled = with_control(prior, finetune_task(task).task().network())  # type: ignore[arg-type]
        shake(controlled.control)
        save_control(Path(found[task]), controlled.control, task=task, prior=named, settings={"factors": [2, 4]})
    for name, options in HEADS.items():
        method = make_method(name, options)
        segmenter = method.build(1, prior)
        shake(segmenter.part)
        save_head(
            Path(found[name]),
            segmenter.part,
            method=name,
            options=options_of(method),
            spacing=6.0,
            prior=named,
            labels=[SegmentLabel(1, "ball", (255, 0, 0))],
        )
    return found


@pytest.fixture(scope="module")
def ct(small_ct: Volume) -> Volume:
    """The middle of the small chest."""
    return Volume(small_ct.voxels[10:30, 4:44, 2:42].copy(), small_ct.ijk_to_ras)


def model_on(device: str, files: dict[str, str], precision: str = "float32") -> FoundationModel:
    """With windows so small that a volume has several."""
    model = load_model(files["prior"], device=device, precision=precision)
    model.engine.memory_level = replace(model.engine.memory_level, window=SMALL)
    return model


def run(model: FoundationModel, name: str, ct: Volume, files: dict[str, str], **options: Any) -> dict[str, np.ndarray]:
    """The result of a task, with the files that it needs."""
    if name == "generate_lesion":
        options |= {"control": files["lesion"], "mean": 60.0, "steps": 2}
    elif name == "super_resolve":
        ct = Volume(ct.voxels[::4].copy(), ct.ijk_to_ras @ np.diag([1.0, 1, 4, 1]))
        options |= {"control": files["super-resolution"], "steps": 2}
    elif name == "segment":
        options = {"head": files[options["head"]], "threshold": 0.5}
    elif name == "synthesize":
        options |= {"size": (90.0, 80.0, 70.0), "spacing": 2.5, "whole_steps": 2, "middle_steps": 1, "native_steps": 2}
    task = TASKS[name]
    mask = None
    if name in ("inpaint", "generate_lesion"):
        mask = np.zeros(ct.voxels.shape, bool)
        mask[8:12, 16:22, 10:15] = True
    case = Case() if task.inputs.volume is NONE else Case(ct, mask)
    return task(**options).run(case, Run(model, seed=3)).volumes


# The pretend GPU


def test_the_pretend_gpu_refuses_what_a_real_one_refuses() -> None:
    before = torch.cuda.is_available, torch.cuda.mem_get_info, torch.Tensor.pin_memory
    with pretend_gpu() as gpu:
        there, here = torch.arange(6.0, device="cuda:0").reshape(2, 3), torch.ones(2, 3)
        mixed: tuple[Callable[[], Any], ...] = (
            lambda: there + here,
            lambda: here.add_(there),
            lambda: torch.cat([here, there]),
            lambda: torch.where(there > 0, here, there),
        )
        for operation in mixed:
            with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
                operation()
        for refused in (there.numpy, lambda: np.asarray(there)):
            with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
                refused()
        with pytest.raises(RuntimeError, match="cannot pin"):
            there.pin_memory()
        assert (there + torch.tensor(1.0)).cpu().sum() == 21 and there[torch.tensor([1])].tolist() == [[3, 4, 5]]
        here.copy_(there)
        there[1].neg_()
        assert here.sum() == 15 and there.cpu().sum() == -9 and there.device == choose_device("auto")
        assert gpu.live == 512
    assert before == (torch.cuda.is_available, torch.cuda.mem_get_info, torch.Tensor.pin_memory)
    with pytest.raises((NotImplementedError, AssertionError, RuntimeError)):
        torch.zeros(1, device="cuda:0")


def test_the_pretend_gpu_counts_memory_and_has_no_more_than_it_has() -> None:
    with pretend_gpu(memory=2**20) as gpu:
        half = torch.zeros(2**17, device="cuda:0")
        view = half[:100]
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory. Tried to allocate 1.00 MiB") as caught:
            torch.stack([half.reshape(1, -1) + 1, half.reshape(1, -1)])
        assert tells_of_memory(str(caught.value).lower()) and gpu.peak == 2**20
        del half, caught
        assert gpu.live == 2**19 == torch.cuda.memory_allocated()
        del view
        assert gpu.live == 0 and torch.cuda.mem_get_info() == (2**20, 2**20)


def test_modules_move_and_autocast_is_that_of_cuda() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.Conv3d(4, 1, 3))
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad(), pretend_gpu():
        here = network(image)
        network.to("cuda:0").to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        assert network[0].weight.device.type == "cuda"
        assert torch.allclose(network(image.to("cuda:0")).cpu(), here, atol=1e-5)
        with torch.autocast("cuda", torch.bfloat16):
            found = network[0](image.to("cuda:0"))
            assert found.dtype == torch.bfloat16
            if is_fast_in_bfloat16(torch.device("cpu")):  # what pretends here; without kernels it forgets the format
                assert found.is_contiguous(memory_format=torch.channels_last_3d)
            normed = network[1](found)
        # CUDA computes it in float32 and knows no other format; a CPU differs in both.
        assert normed.dtype == torch.float32 and normed.is_contiguous()
        with pytest.raises(RuntimeError, match="same device"):
            network(image)


# Tasks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("denoise", {"noise": 20.0, "blocks": 0.0, "detail": 0.0}),
        ("denoise", {"noise": 20.0, "steps": 2}),
        ("anomaly", {"threshold": 0.7, "method": "cubes"}),
        ("inpaint", {"steps": 2, "samples": 2}),
        ("generate_lesion", {}),
        ("super_resolve", {}),
        ("synthesize", {"guidance": 1.5}),
        *[("segment", {"head": name}) for name in HEADS],
    ],
)
def test_every_task_finds_on_a_gpu_what_it_finds_on_the_cpu(
    name: str, options: dict[str, Any], ct: Volume, files: dict[str, str]
) -> None:
    """Within 1 HU, or a hundredth of a score or a probability; the same float32 arithmetic in another order."""
    expected = run(model_on("cpu", files), name, ct, files, **options)
    with pretend_gpu() as gpu:
        model = model_on("cuda:0", files)
        weights = gpu.live
        found = run(model, name, ct, files, **options)
        assert gpu.peak > weights + 2**20  # it did compute there
    for key, array in expected.items():
        whole = np.issubdtype(array.dtype, np.integer)
        difference = np.abs(found[key].astype(float) - array)
        assert found[key].dtype == array.dtype
        if key == "segmentation":  # a probability at the threshold may fall to either side
            assert difference.mean() < 1e-3 and array.any()
        else:
            assert difference.max() <= (1 if whole else 0.01), key
            assert array.std() > 0, key


@pytest.mark.slow
def test_bfloat16_is_computed_where_the_gpu_can_by_kernels_that_repeat(ct: Volume, files: dict[str, str]) -> None:
    with pretend_gpu(capability=(7, 5)):
        assert choose_precision("auto", torch.device("cuda:0")) == torch.float32
        assert not autocast(torch.device("cuda:0"))._enabled, "training keeps to the same rule"
    expected = run(model_on("cpu", files), "denoise", ct, files, noise=20.0, prior=True, quick=True)
    types = set()
    with pretend_gpu():
        model = model_on("cuda:0", files, "auto")
        convolution = next(part for part in model.engine.denoiser.modules() if isinstance(part, torch.nn.Conv3d))
        flags = torch.backends.cudnn
        convolution.register_forward_hook(
            lambda part, given, result: types.add((result.dtype, flags.deterministic, flags.allow_tf32))
        )
        found = run(model, "denoise", ct, files, noise=20.0, prior=True, quick=True)
    assert types == {(torch.bfloat16, True, False)} and not torch.backends.cudnn.deterministic
    assert 0 < np.abs(found["noise"] - expected["noise"]).max() < 5


# Memory and waiting


def engine_on_gpu(files: dict[str, str], told: list[str], **options: Any) -> Engine:
    denoiser = load_model(files["prior"], device="cpu").engine.denoiser
    engine = Engine(denoiser, device="cuda:0", precision="float32", window=SMALL, **options)
    engine.on_warning = told.append
    return engine


def step(engine: Engine, shape: tuple[int, int, int]) -> torch.Tensor:
    """One step of a volume, in windows that overlap little."""
    x = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(1))
    return SlidingWindowDenoiser(engine, Condition((1.0, 1.0, 1.0)), shape, overlap=4)(x, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("megabytes", "batch", "memory_level", "sentences"),
    [
        (80, None, ("cuda", 4), 0),
        (12, 8, ("cuda", 4), 1),  # more windows at a time than fit
        (6, None, ("cuda", 1), 0),
        (3, None, ("cpu", 1), 2),  # not even one window
        (1, None, ("cpu", 1), 0),  # not even the network
    ],
)
def test_a_step_ends_with_the_same_result_however_little_memory_there_is(
    megabytes: int,
    batch: int | None,
    memory_level: tuple[str, int],
    sentences: int,
    files: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    shape = (24, 60, 60)
    engine = load_model(files["prior"], device="cpu", precision="float32").engine
    engine.memory_level = replace(engine.memory_level, window=SMALL)
    expected = step(engine, shape)
    told: list[str] = []
    with pretend_gpu(memory=megabytes * 10**6) as gpu:
        engine = engine_on_gpu(files, told)
        engine.memory_level = replace(engine.memory_level, batch=batch or engine.memory_level.batch)
        found = step(engine, shape)
        assert gpu.peak <= gpu.memory
    assert torch.allclose(found, expected, atol=1e-4)
    assert (engine.memory_level.device.type, engine.memory_level.batch) == memory_level and len(told) == sentences
    assert ("does not hold even the network" in caplog.text) == (megabytes == 1)


@pytest.mark.slow
def test_a_gpu_that_another_program_fills_between_two_steps(files: dict[str, str]) -> None:
    """What was kept there for the second step does not meet the CPU's windows."""
    shape = (SMALL, SMALL, SMALL)
    told: list[str] = []
    x = torch.zeros(1, 1, *shape)
    with pretend_gpu() as gpu:
        engine = engine_on_gpu(files, told)
        denoise = SlidingWindowDenoiser(engine, Condition((1.0, 1.0, 1.0)), shape)
        first = denoise(x, 0.5)
        assert len(denoise._encoded) == 1
        gpu.memory = gpu.live + 10**6
        second = denoise(x, 0.5)
    assert engine.device.type == "cpu" and told[-1].endswith("on the CPU.")
    assert torch.allclose(first, second, atol=1e-4)


@pytest.mark.slow
def test_a_task_falls_down_the_ladder_to_a_result(ct: Volume, files: dict[str, str]) -> None:
    for name, options in (("inpaint", {"steps": 2, "samples": 2}), ("segment", {"head": "features"})):
        expected = run(model_on("cpu", files), name, ct, files, **options)
        told: list[str] = []
        with pretend_gpu(memory=2_200_000):
            model = model_on("cuda:0", files)
            model.engine.on_warning = told.append
            assert model.device == "cuda:0"
            found = run(model, name, ct, files, **options)
        assert told and model.device == "cpu"
        for key, array in expected.items():
            assert np.abs(found[key].astype(float) - array).mean() < 0.01, key


@pytest.mark.slow
def test_beyond_one_set_of_windows_a_volume_takes_what_was_planned(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing where it is held in host memory; else 8 bytes a voxel: the image and its estimate."""
    monkeypatch.setattr("MedDiffFMLib.inference.sliding_window.KEPT_CONDITIONS", 0)
    shapes = [(24, 104, 84), (44, 104, 84)]
    voxels = [int(np.prod(shape)) for shape in shapes]
    for megabytes, on_host in ((5.0, True), (400, False)):
        peaks, plans = [], []
        for shape, count in zip(shapes, voxels, strict=True):
            told: list[str] = []
            with pretend_gpu(memory=int(megabytes * 1e6)) as gpu:
                engine = engine_on_gpu(files, told)
                engine.memory_level = replace(engine.memory_level, batch=1)
                plans.append(plan_memory(count, engine.free_memory(), SMALL))
                weights = gpu.live
                step(engine, shape)
                peaks.append(gpu.peak - weights)
            assert not told and engine.device.type == "cuda"
        assert [plan.host for plan in plans] == [on_host, on_host]
        planned = plans[1].device_bytes - plans[0].device_bytes
        assert planned == (0 if on_host else 8 * (voxels[1] - voxels[0]))
        assert peaks[1] - peaks[0] == pytest.approx(planned, abs=0.03 * peaks[0])
        assert peaks[0] <= plans[0].device_bytes


def test_a_large_ct_fits_into_a_small_gpu() -> None:
    voxels = 512 * 512 * 1000
    plan = plan_memory(voxels, 8 * 10**9, WINDOW)
    assert plan.device_bytes < 8e9 and plan.batch >= 8 and not plan.host
    assert plan_memory(voxels, 4 * 10**9, WINDOW).host


@pytest.mark.slow
def test_windows_take_no_more_memory_than_the_plan_assumes() -> None:
    """The shipped network in bfloat16, as CUDA's autocast computes it; workspaces are not counted."""
    with pretend_gpu() as gpu:
        engine = load_model("starter-ct", device="cuda:0", precision="bfloat16").engine
        edge, weights = 24, gpu.live
        gpu.peak = weights
        condition = Condition((1.0, 1.0, 1.0)).encode((edge,) * 3, engine.device)
        engine.denoise(torch.zeros(1, 1, edge, edge, edge, device="cuda:0"), 0.03, condition)
        assert 0.2 < (gpu.peak - weights) / plan_memory(0, 1, edge).device_bytes < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("on_host", [False, True])
def test_no_window_makes_the_cpu_wait_for_all_that_the_gpu_was_given(files: dict[str, str], on_host: bool) -> None:
    """A step waits when it brings a whole volume there and back, and for each batch while the next is computed."""
    waits = []
    for shape in ((24, 24, 60), (24, 60, 80)):
        anatomy, lines = torch.ones(shape, dtype=torch.uint8), [torch.linspace(-1, 1, n) for n in shape]
        known = torch.zeros(shape)
        condition = Condition((1.0, 1.0, 1.0), tuple(lines), 1, anatomy, known, torch.ones(shape))  # type: ignore[arg-type]
        wanted = torch.zeros(shape, dtype=torch.bool)
        wanted[..., :40] = True
        with pretend_gpu() as gpu:
            engine = engine_on_gpu(files, [])
            engine.memory_level = replace(engine.memory_level, batch=1, host=on_host)
            denoise = SlidingWindowDenoiser(engine, condition, shape, overlap=8, turn=1, wanted=wanted)
            gpu.waits = 0
            denoise(torch.zeros(1, 1, *shape), 0.5)
            waits.append((gpu.waits, gpu.events, denoise.windows))
    assert [row[0] for row in waits] == ([0, 0] if on_host else [2, 2])
    assert all(events == windows for _, events, windows in waits) and waits[0][2] < waits[1][2]


# Training, benchmark, worker


@pytest.mark.slow
def test_a_training_step_has_the_cpus_loss_and_moves_the_weights(files: dict[str, str]) -> None:
    shape = (2, 1, 16, 16, 16)
    one = Condition((1.0, 1.0, 1.0))
    generator = torch.Generator().manual_seed(0)
    image, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)

    def loss_after_two_steps(device: str) -> tuple[float, float]:
        denoiser: Any = load_model(files["prior"], device="cpu").engine.denoiser.requires_grad_(True).to(device)
        optimizer = torch.optim.AdamW(denoiser.parameters(), 1e-3)
        condition = one.encode((16,) * 3, device)
        batch = type(condition)(condition.region.repeat(2), condition.channels.repeat(2, 1, 1, 1, 1))
        losses = []
        for _ in range(2):
            level = torch.full((2,), 0.1, device=device)
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                loss = denoiser.loss(image.to(device), level, noise.to(device), batch).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
        return losses[0], losses[1]

    expected = loss_after_two_steps("cpu")
    with pretend_gpu(autograd=True) as gpu:
        found = loss_after_two_steps("cuda:0")
        assert gpu.peak > 2**20
    assert found == pytest.approx(expected, rel=0.02) and found[1] < found[0]


@pytest.mark.slow
def test_the_benchmark_measures_a_gpu(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedDiffFMLib.training.throughput.matrix_rate", lambda device, dtype: 1e12)
    settings = SubjectSettings(files["prior"], "cuda:0", None, 2, 16, 1.0)
    with pretend_gpu():
        subject = EngineSubject(settings)
        subject.model.engine.memory_level = replace(subject.model.engine.memory_level, batch=2, window=16)
        figures = subject.measure(SpeedCase("network"))
        assert figures["windows"] == 2 and figures["flops"] > 1e6 and subject.about()["precision"] == "bfloat16"
    with pretend_gpu(autograd=True):
        figures = EngineSubject(settings).measure(SpeedCase("train"))
        assert figures["windows"] == 4 and figures["seconds"] > 0


@pytest.mark.slow
def test_worker_and_report_name_the_gpu(ct: Volume, files: dict[str, str]) -> None:
    with pretend_gpu(memory=2**30):
        devices = describe_process()["devices"]
        assert devices[1] == {"name": "cuda:0", "title": NAME, "memory_bytes": 2**30, "free_bytes": None}
        model = model_on("auto", files)
        parameters = TASKS["denoise"](noise=20.0, blocks=0.0, detail=0.0)
        settings = RunSettings("denoise", parameters, model=files["prior"], precision="float32")
        result, report = compute(settings, LoadedCase(ct), model, None, CancelToken())
    assert report["device"] == "cuda:0" and report["machine"]["gpu"] == NAME and result.volumes
    assert report["peak_memory_bytes"]["cuda"] > 2**20


@pytest.mark.skipif(os.name == "nt", reason="needs a program that is a script")
def test_the_driver_tells_how_much_memory_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the identifier of each GPU, since PyTorch may count them in another order or see only some."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\nprintf "GPU-a1, 1000\\nGPU-b2, 20\\n"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert _free_memory() == {"GPU-a1": 1000 * 2**20, "GPU-b2": 20 * 2**20}
    program.write_text("#!/bin/sh\necho No devices were found\n")
    assert _free_memory() == {}


def test_a_gpu_that_cannot_be_used_is_not_chosen_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    with pretend_gpu(memory=0):
        assert torch.cuda.is_available() and choose_device("auto") == torch.device("cpu")
    assert "on the CPU. CUDA out of memory" in caplog.text


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_cuda_libraries_have_their_own_words_for_a_shortage(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))


# Other makers' GPUs


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "title"), [("xpu", NAME), ("mps", "Apple GPU")])
def test_intels_and_apples_gpus_compute_what_the_cpu_does(
    kind: str, title: str, ct: Volume, files: dict[str, str]
) -> None:
    """Chosen where they are there; float32 where bfloat16 gains nothing; named in report and worker's hello."""
    asked: dict[str, dict[str, Any]] = {
        "denoise": {"noise": 20.0},
        "inpaint": {"steps": 2, "samples": 2},
        "segment": {"head": "features"},
    }
    expected = {name: run(model_on("cpu", files), name, ct, files, **options) for name, options in asked.items()}
    with pretend_gpu(kind=kind) as gpu:
        assert choose_device("auto") == choose_device(kind) == gpu.device
        assert choose_precision("auto", gpu.device) == (torch.bfloat16 if kind == "xpu" else torch.float32)
        model = model_on("auto", files)
        weights = gpu.live
        found = {name: run(model, name, ct, files, **options) for name, options in asked.items()}
        assert gpu.peak > weights + 2**20 and model.device == f"{kind}:0"
        assert machine(model.device)["gpu"] == title
        assert describe_process()["devices"][1]["name"] == f"{kind}:0"
        assert describe_process()["devices"][1]["memory_bytes"] == gpu.memory
    for name, arrays in expected.items():
        for key, array in arrays.items():
            difference = np.abs(found[name][key].astype(float) - array)
            assert difference.mean() < 1e-3 if key == "segmentation" else difference.max() <= 1, (name, key)


@pytest.mark.parametrize("kind", ["xpu", "mps"])
def test_other_makers_gpus_with_too_little_memory_leave_the_rest_to_the_cpu(kind: str, files: dict[str, str]) -> None:
    denoiser = load_model(files["prior"], device="cpu", precision="float32").engine.denoiser
    told: list[str] = []
    with pretend_gpu(memory=3 * 10**6, kind=kind):
        engine = Engine(denoiser, device=kind, precision="float32", window=SMALL)
        engine.on_warning = told.append
        step(engine, (SMALL, SMALL, SMALL))
    assert engine.device.type == "cpu" and told


def test_a_kind_of_gpu_that_is_not_there_is_refused_by_name() -> None:
    for kind, words in (("xpu", "0 Intel GPU devices"), ("mps", "0 Apple GPU devices"), ("cuda:3", "0 CUDA devices")):
        with pytest.raises(DeviceError, match=words):
            choose_device(kind)
    with pytest.raises(InputError, match="no kind of device called 'tpu'"):
        choose_device("tpu")


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [("gfx90a:sramecc+:xnack-", torch.bfloat16), ("gfx1100", torch.bfloat16), ("gfx1030", torch.float32)],
)
def test_amds_gpus_compute_in_what_they_are_fast_in(
    architecture: str, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are PyTorch's "cuda", with architectures in place of NVIDIA's numbers."""
    with pretend_gpu(capability=(10, 3)) as gpu:
        monkeypatch.setattr(torch.version, "hip", "6.4")
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(gcnArchName=architecture)
        )
        assert choose_precision("auto", gpu.device) == precision


def test_an_apple_gpu_computes_on_the_cpu_what_it_lacks() -> None:
    """PyTorch reads the wish when it is imported, so that the package must have said it before."""
    code = "import os, MedDiffFMLib; print(os.environ['PYTORCH_ENABLE_MPS_FALLBACK'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "1"
