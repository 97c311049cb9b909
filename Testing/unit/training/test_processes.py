"""Processes that train together: one loss, one gradient, one curve, and the commands under torchrun."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import Cancelled, InputError
from MedDiffFMLib.core.file_hash import file_sha256
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.datasets.prepare import prepare
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.models.checkpoint import save_model
from MedDiffFMLib.multimodal.alignment import info_nce
from MedDiffFMLib.multimodal.flow_file import load_flows
from MedDiffFMLib.multimodal.local_guess import fit_local_guess
from MedDiffFMLib.multimodal.trunk_flow import TrunkFlow
from MedDiffFMLib.training.pretrain import translation
from MedDiffFMLib.training.processes import Processes
from Testing.unit.multimodal.test_translation import toy_pairs
from Testing.unit.multimodal.test_trunk_flow import SMALL_PRIOR, small_prior
from Testing.unit.phantoms import body

ROOT = Path(__file__).parents[3]
COUNT = 2
needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork") or not torch.distributed.is_available(), reason="forks, so that nothing is imported twice"
)


class Pairs(torch.nn.Module):
    """InfoNCE of two linear encoders whose vectors are centered by all rows, and a temperature."""

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(5, 3), torch.nn.Linear(4, 3)
        self.unused = torch.nn.Linear(2, 2)
        self.scale = torch.nn.Parameter(torch.tensor(3.0))
        self.norm = torch.nn.BatchNorm1d(3, affine=False)
        self.processes = processes

    def forward(self, images: torch.Tensor, texts: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
        rows = len(images)
        mine = self.processes.share(rows)
        vectors = [
            functional.normalize(self.norm(self.processes.gathered(layer(part[mine]), rows)), dim=1)
            for layer, part in ((self.first, images), (self.second, texts))
        ]
        return info_nce(*vectors, self.scale.exp(), fits)


def batch(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    images, texts, fits = (torch.rand(rows, width, generator=generator, dtype=torch.float64) for width in (5, 4, rows))
    return images, texts, fits.fill_diagonal_(1.0)


def trained(processes: Processes, rows: int) -> dict[str, torch.Tensor]:
    """Loss, gradients and buffers after one step."""
    torch.manual_seed(0)
    pairs = Pairs(processes).double()
    module: torch.nn.Module = pairs
    if processes.count > 1:
        module = DistributedDataParallel(pairs, find_unused_parameters=True)
    loss = module(*batch(rows))
    loss.backward()
    gradients = {name: p.grad for name, p in pairs.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients, **dict(pairs.named_buffers())}


def in_processes(work, folder: Path) -> list[dict[str, torch.Tensor]]:  # type: ignore[no-untyped-def]
    """What ``work(processes)`` gives in each of two processes that are connected by gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def one(rank: int) -> None:
        address = f"tcp://127.0.0.1:{port}"
        torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=COUNT)
        torch.save(work(Processes(rank, COUNT)), folder / f"{rank}.pt")
        torch.distributed.destroy_process_group()

    children = []
    for rank in range(COUNT):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                one(rank)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * COUNT
    return [torch.load(folder / f"{rank}.pt") for rank in range(COUNT)]


@needs_fork
@pytest.mark.parametrize("rows", [8, 7])
def test_two_processes_have_the_loss_and_the_gradient_of_one(rows: int, tmp_path: Path) -> None:
    """Also of a batch that cannot be divided, of which one row is encoded twice and counts once."""
    alone = trained(Processes(), rows)
    assert alone.keys() >= {"loss", "scale", "first.weight", "second.bias", "norm.running_mean"}
    assert "unused.weight" not in alone
    for found in in_processes(lambda processes: trained(processes, rows), tmp_path):
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12, msg=name)


def test_shares_are_all_rows_once() -> None:
    made: list[int] = []
    for rank in range(3):
        Processes(rank, 3, fabric=Waiting()).make(range(7), made.extend)
    assert sorted(made) == list(range(7))
    Processes().make(range(7), made.extend)
    assert len(made) == 7, "one alone makes everything when all is asked for"
    shares = [list(range(12))[Processes(rank, 3).even_share(12)] for rank in range(3)]
    assert sum(shares, []) == list(range(12)) and {len(share) for share in shares} == {4}
    with pytest.raises(InputError, match="A batch of 4 cannot be divided among 3 processes. Give a multiple of 3"):
        Processes(0, 3).even_share(4)


class Waiting:
    """Fabric whose processes come one after the other."""

    def barrier(self) -> None:
        pass


def test_the_first_speaks_and_each_listens() -> None:
    said: list[str] = []
    cancel = CancelToken()
    for rank in range(2):
        Processes(rank, 2).telling(said.append, cancel)(f"from {rank}")
    assert said == ["from 0"]
    cancel.cancel()
    for rank in range(2):
        with pytest.raises(Cancelled):
            Processes(rank, 2).telling(said.append, cancel)("late")


def rows(folder: Path) -> list[dict[str, float]]:
    with open(folder / "losses.csv", newline="") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def torchrun(*arguments: object, cwd: Path) -> None:
    """A command in two processes that torchrun starts; it has to end well and to answer once."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(COUNT), "--standalone",
         "-m", "MedDiffFMLib", *map(str, arguments), "--accelerator", "cpu"],
        cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("SHA-256") == 1, done.stdout


def torchrun_in_forks(*arguments: object) -> None:
    """The same by the function that torchrun calls, in forks of this process, which has imported everything."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        1, 1, COUNT, run_id=uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0,
        start_method="fork", monitor_interval=0.05,
    )  # fmt: skip
    codes = elastic_launch(config, main)([*map(str, arguments), "--accelerator", "cpu"])
    assert codes == dict.fromkeys(range(COUNT), 0)


def same_curve(one: Path, other: Path, steps: int) -> None:
    for row, expected in zip(rows(one), rows(other), strict=True):
        for name in ("loss", "gradient_norm"):
            assert row[name] == pytest.approx(expected[name], rel=2e-3), (row["step"], name)
    assert [row["step"] for row in rows(one)] == list(range(1, steps + 1))


@pytest.mark.slow
@needs_fork
def test_torchrun_goes_on_with_encoders_as_one_process_would(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two processes prepare in shares, begin, and go on with what they began; one process has the same curve."""
    write_volume(body((34, 40, 44), 6.0), tmp_path / "one.nrrd")
    write_volume(body((30, 40, 40), 6.0), tmp_path / "two.nrrd")
    (tmp_path / "list.json").write_text(json.dumps({"training": ["one.nrrd", "two.nrrd"]}))
    prepare(tmp_path / "list.json", tmp_path / "cache")
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    # A batch of 5 cannot be divided by two.
    run = ["multimodal", "train", tmp_path / "cache", "--batch", 5, "--seed", 3]
    torchrun_in_forks(*run, "-o", shared, "--steps", 1)
    assert capfd.readouterr().out.count("SHA-256") == 1, "one process speaks for all"
    shutil.copytree(shared / "boxes", whole / "boxes")
    assert main([*map(str, run), "-o", str(whole), "--steps", "3", "--quiet", "--accelerator", "cpu"]) == 0
    torchrun_in_forks(*run, "-o", shared, "--steps", 3)
    same_curve(shared, whole, 3)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (shared, whole))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name].float(), tensor.float(), rtol=2e-2, atol=2e-3, msg=name)


@pytest.mark.slow
@needs_fork
def test_torchrun_trains_flows_on_a_trunk_and_one_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datalist = toy_pairs(tmp_path)
    prior = tmp_path / "prior.safetensors"
    save_model(prior, small_prior().state_dict(), {"network": SMALL_PRIOR.as_dict(), "denoiser": "edm"})
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    run = ["pretrain-translate", datalist, "--trunk", prior, "--batch", 2, "--float32", "--learning-rate", 1e-3]
    monkeypatch.setattr(translation, "fit_local_guess", partial(fit_local_guess, steps=30))
    alone = [*map(str, run), "--steps", "3", "--quiet", "--accelerator", "cpu"]
    assert main([*alone, "-o", str(whole)]) == 0
    shared.mkdir()
    shutil.copy(whole / "guess.safetensors", shared)  # costs more than all the rest, and is one process' work anyway
    torchrun(*run, "-o", shared, "--steps", 2, cwd=tmp_path)
    assert main([*alone, "-o", str(shared)]) == 0
    same_curve(shared, whole, 3)
    flows = load_flows(shared / "translate.safetensors")
    assert isinstance(flows.flows["ct"], TrunkFlow) and not isinstance(flows.flows["mr-t1"], TrunkFlow)
    assert flows.facts is not None and flows.facts["trunk"] == file_sha256(prior)
    assert main([*map(str, run), "-o", str(shared), "--steps", "3", "--seed", "1", "--quiet"]) == 2, "another run"
