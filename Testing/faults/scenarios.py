"""The commands that faults happen to, each with what it must leave behind when it is undisturbed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import MedDiffFMError
from MedDiffFMLib.core.file_hash import file_sha256
from MedDiffFMLib.core.safe_load import is_there
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.catalogue import CatalogueEntry, list_models, register_model
from MedDiffFMLib.models.checkpoint import build_denoiser, read_metadata, read_weights, save_model
from MedDiffFMLib.networks.unet import NetworkConfig
from MedDiffFMLib.runner.settings import RunSettings
from MedDiffFMLib.worker.exchange import RunRequest
from MedDiffFMLib.worker.protocol import error_fields
from MedDiffFMLib.worker.transport import WorkerClient

from .process import Place

SHAPE = (16, 22, 22)


def small_case(number: int) -> tuple[Volume, np.ndarray]:
    """Soft tissue in air with a bright ball, and the ball."""
    rng = np.random.default_rng(number)
    axes = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    body = ((axes[1] - 10.5) / 9) ** 2 + ((axes[2] - 10.5) / 9) ** 2 < 1
    ball = sum((a - c) ** 2 for a, c in zip(axes, rng.uniform(7, 10, 3), strict=True)) <= 9
    voxels = np.where(body, 40, -1000) + np.where(ball, 150, 0) + rng.integers(-15, 16, SHAPE)
    return Volume(voxels.astype(np.int16), np.diag([-2.5, -2.5, 2.5, 1.0])), ball.astype(np.uint8)


class Workshop:
    """Inputs that all scenarios share: three CTs, a dataset of them, and a prior so small that a run takes a moment."""

    def __init__(self, folder: Path) -> None:
        import torch

        from MedDiffFMLib.datasets.dataset_folder import Dataset

        self.folder = folder
        self.model = folder / "tiny.safetensors"
        self.cts, self.pairs = folder / "cts", folder / "pairs"
        config = {"network": NetworkConfig(channels=(8, 32), attention=(False, False)).as_dict(), "denoiser": "edm"}
        torch.manual_seed(0)
        save_model(self.model, build_denoiser(config).state_dict(), config)
        dataset = Dataset.create(folder / "data")
        for number in range(3):
            image, mask = small_case(number)
            write_volume(image, self.cts / f"ct{number}.nrrd")
            write_volume(image, self.pairs / f"p{number}.nrrd")
            write_volume(Volume(mask, image.ijk_to_ras, "mask"), self.pairs / f"p{number}_mask.nrrd", mask=True)
            dataset.add(f"c{number}", image, mask)
        dataset.set_validation(["c2"])
        self.data = dataset.folder


class Scenario:
    """One command.

    Attributes:
        name: in the table.
        share: how often it is chosen, compared with the others.
        uses_weights: whether damaged weights are any matter to it.
        functions: where memory may run out, module and name.
    """

    name = ""
    share = 3
    uses_weights = True
    functions: tuple[tuple[str, str], ...] = ()

    def __init__(self, workshop: Workshop) -> None:
        self.shop = workshop

    def work(self, place: Place, model: Path) -> Callable[[], int]:
        """What the process does."""
        return lambda: main(self.words(place, model))

    def furnish(self, place: Place) -> None:
        """What lies there before the command."""

    def lost(self, place: Place) -> list[str]:
        """What lay there before and is no longer, neither the old nor the new."""
        return []

    def words(self, place: Place, model: Path) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def results(self, place: Place) -> dict[str, str]:
        """What decides about equality with an undisturbed run: names and hashes."""
        raise NotImplementedError


class Batch(Scenario):
    """Denoise a folder."""

    name, share = "batch", 5
    functions = (
        ("MedDiffFMLib.inference.engine", "Engine.denoise"),
        ("MedDiffFMLib.imaging.formats.nrrd", "_read_voxels"),
        ("MedDiffFMLib.imaging.io", "write_nrrd"),
        ("MedDiffFMLib.models.checkpoint", "read_weights"),
    )

    def words(self, place: Place, model: Path) -> list[str]:
        return ["denoise", "--batch", str(self.shop.cts), "-o", str(place.output), "--noise", "20", "--steps", "1",
                "--model", str(model), "--device", "cpu", "--threads", "1", "--json"]  # fmt: skip

    def results(self, place: Place) -> dict[str, str]:
        return {path.name: file_sha256(path) for path in place.output.glob("*.nrrd")}


class Overwrite(Batch):
    """The same where results of another seed are replaced."""

    name = "overwrite"

    def words(self, place: Place, model: Path) -> list[str]:
        return [*super().words(place, model), "--overwrite"]

    def furnish(self, place: Place) -> None:
        self.furnished = []
        for name, source in self._old().items():
            try:
                (place.output / name).write_bytes(source.read_bytes())
                self.furnished.append(name)
            except OSError:  # the disk is full already
                (place.output / name).unlink(missing_ok=True)

    def lost(self, place: Place) -> list[str]:
        if not is_there(place.output):  # a name that no system takes: nothing was put there
            return []
        return [name for name in self.furnished if not (place.output / name).exists()]

    def _old(self) -> dict[str, Path]:
        """Results of earlier days: the CTs themselves, under the names of the results."""
        ends = ("denoise", "denoise_noise")
        return {f"{path.stem}_{end}.nrrd": path for path in sorted(self.shop.cts.glob("*.nrrd")) for end in ends}


class Finetune(Scenario):
    """Fine-tune a ControlNet and list it among the user's models."""

    name, share = "training", 4
    functions = (
        ("MedDiffFMLib.training.loop", "TrainingLoop._one_step"),
        ("MedDiffFMLib.imaging.formats.nrrd", "_read_voxels"),
        ("MedDiffFMLib.training.loop", "save_atomically"),
        ("MedDiffFMLib.models.checkpoint", "read_weights"),
    )

    def words(self, place: Place, model: Path) -> list[str]:
        return ["finetune", "--task", "lesion", "--data", str(self.shop.data), "-o", str(place.output / "run"),
                "--prior", str(model), "--steps", "6", "--batch", "1", "--window", "16", "--validate-every", "3",
                "--checkpoint-every", "2", "--patience", "99", "--accelerator", "cpu", "--name", "ours",
                "--json"]  # fmt: skip

    def results(self, place: Place) -> dict[str, str]:
        run = place.output / "run"
        found = {name: "" for name in ("best.safetensors", "card.md", "result.json") if (run / name).exists()}
        with contextlib.suppress(OSError):
            with open(run / "losses.csv", newline="") as stream:
                found["losses"] = str([(row["step"], row["loss"]) for row in csv.DictReader(stream)])
            found["weights"] = _tensors(run / "best.safetensors")
            os.environ["MEDDIFFFM_MODELS"] = str(place.models)
            found["listed"] = str([entry.name for entry in list_models("control") if entry.is_own])
        return found


class MakeDataset(Scenario):
    """Gather a dataset from pairs of files."""

    name = "dataset"
    uses_weights = False
    functions = (("MedDiffFMLib.imaging.formats.nrrd", "_read_voxels"), ("MedDiffFMLib.imaging.io", "write_nrrd"))

    def words(self, place: Place, model: Path) -> list[str]:
        return ["dataset", "create", str(place.output / "ours"), "--pairs", str(self.shop.pairs), "--json"]

    def results(self, place: Place) -> dict[str, str]:
        ours = place.output / "ours"
        return {p.relative_to(ours).as_posix(): file_sha256(p) for p in ours.rglob("*.nrrd")}


class Install(Scenario):
    """Install a weight file among the user's models, replacing an older one of the same run, and look it up."""

    name = "install"
    functions = (("MedDiffFMLib.models.catalogue", "atomic_path"),)

    def work(self, place: Place, model: Path) -> Callable[[], int]:
        return lambda: _as_command(lambda: self._install(model))

    def _install(self, model: Path) -> dict[str, Any]:
        for title in ("first", "second"):
            read_weights(model)
            entry = CatalogueEntry("ours", title, "", "", file_sha256(model), 1, "own", "", 100, run="r")
            register_model(entry, model, f"# {title}\n")
        found = next(entry for entry in list_models() if entry.name == "ours")
        return {"status": "done", "title": found.title, "file": found.file}

    def results(self, place: Place) -> dict[str, str]:
        return {path.name: file_sha256(path) for path in place.models.iterdir() if not path.name.startswith(".")}


class Worker(Scenario):
    """A program with a warm worker: two runs in a process of its own."""

    name, share = "worker", 1
    functions = (("MedDiffFMLib.worker.protocol", "load_array"), ("MedDiffFMLib.imaging.io", "write_nrrd"))

    def work(self, place: Place, model: Path) -> Callable[[], int]:
        return lambda: _as_command(lambda: self._use(place, model))

    def _use(self, place: Place, model: Path) -> dict[str, Any]:
        ct, _ = small_case(0)
        parameters = {"noise": 20.0, "steps": 1}
        settings = RunSettings("denoise", parameters, model=str(model), device="cpu", threads=1)
        request = RunRequest(settings, ct.voxels, ct.ijk_to_ras)
        with WorkerClient(python_of_worker()) as client:
            for _ in range(2):
                result = client.run(request)
        write_volume(ct.with_voxels(result.volumes["denoised"]), place.output / "denoised.nrrd", overwrite=True)
        return {"status": "done"}

    def results(self, place: Place) -> dict[str, str]:
        return {path.name: file_sha256(path) for path in place.output.glob("*.nrrd")}


SCENARIOS: tuple[type[Scenario], ...] = (Batch, Overwrite, Finetune, MakeDataset, Install, Worker)


def python_of_worker() -> str:
    """The Python that runs the tests; a fault may put a limit around it."""
    return os.environ.get("FAULTS_WORKER", sys.executable)


def _as_command(work: Callable[[], dict[str, Any]]) -> int:
    """Run a piece of a program as the command line runs its commands."""
    from MedDiffFMLib.core.errors import Cancelled, expected

    try:
        answer = work()
    except KeyboardInterrupt:
        failure = Cancelled()
        print(f"meddifffm: {failure}", file=sys.stderr, flush=True)
        print(json.dumps({"status": "cancelled", **error_fields(failure)}), flush=True)
        return failure.exit_code
    except Exception as problem:
        failure = expected(problem)
        if failure is None:
            raise
        print(f"meddifffm: error: {failure}", file=sys.stderr, flush=True)
        print(json.dumps({"status": "error", **error_fields(failure)}), flush=True)
        return failure.exit_code
    with contextlib.suppress(OSError, AttributeError):
        print(json.dumps(answer), flush=True)
    return 0


def damaged_files(folder: Path) -> list[str]:
    """Visible files below a folder that their readers refuse."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            _read(path)
        except (MedDiffFMError, OSError, ValueError, KeyError, RuntimeError, EOFError) as problem:
            found.append(f"{path.name}: {type(problem).__name__} {problem}"[:300])
    return found


def _read(path: Path) -> None:
    """Read a file to its end; ``.csv`` and ``.jsonl`` grow line by line, so their last line may be cut."""
    if path.suffix == ".nrrd":
        read_volume(path)
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix == ".safetensors":
        read_metadata(path)
        read_weights(path)
    elif path.suffix == ".pt":
        import torch

        torch.load(path, weights_only=True)
    elif path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        for record in content.get("outputs", {}).values() if isinstance(content, dict) else ():
            if file_sha256(path.parent / record["file"]) != record["sha256"]:
                raise ValueError(f"{record['file']} is not the file that its report names")
    elif path.suffix == ".jsonl":
        for line in path.read_text(encoding="utf-8").splitlines()[:-1]:
            json.loads(line)


def _tensors(path: Path) -> str:
    """Hash of the weights alone; the description holds times."""
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(read_weights(path).state.items()):
        stream = io.BytesIO()
        np.save(stream, tensor.numpy())
        digest.update(name.encode() + stream.getvalue())
    return digest.hexdigest()
