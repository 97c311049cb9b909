"""A rehearsal on the CPU of what is to be done on a GPU that is rented by the minute, and what it is carried by."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.core.split_files import join_file, split_file
from MedDiffFMLib.datasets.packed_cases import pack_cache, unpack_cache
from MedDiffFMLib.datasets.prepare import prepare
from MedDiffFMLib.datasets.prepared_cases import open_cases
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import read_header
from Testing.experiments import gpu_quarter_hour, step_parts
from Testing.experiments.gpu_quarter_hour import run_for
from Testing.harness.pretend_gpu import can_pretend, pretend_gpu
from Testing.unit.phantoms import body

SCRIPT = Path(gpu_quarter_hour.__file__)
TINY = ["--channels", "8", "32", "--window", "16", "--learning-rate", "0.001"]


@pytest.fixture(scope="module")
def cache(small_ct: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases to train on, one to validate on."""
    folder = tmp_path_factory.mktemp("cts")
    write_volume(small_ct, folder / "chest.nrrd")
    write_volume(body(spacing=2.0), folder / "ball.nrrd")
    write_volume(body((30, 60, 90), 1.5), folder / "wide.nrrd")
    write_volume(body((30, 40, 40)), folder / "other.nrrd")
    names = {"training": ["chest.nrrd", "ball.nrrd", "wide.nrrd"], "validation": ["other.nrrd"]}
    (folder / "list.json").write_text(json.dumps(names))
    prepare(folder / "list.json", folder / "cache")
    return folder / "cache"


def call(*words: str) -> dict[str, Any]:
    """What a command of the script answers."""
    args = gpu_quarter_hour.parser().parse_args(words)
    answer: dict[str, Any] = json.loads(json.dumps(args.action(args)))
    return answer


def call_as_a_script(*words: str) -> dict[str, Any]:
    """What the script prints last."""
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_pieces_are_joined_or_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(np.random.default_rng(0).bytes(10_000))
    listed = split_file(path, tmp_path / "sent", 4096)
    sizes = [piece.stat().st_size for piece in sorted((tmp_path / "sent").glob("weights.bin.0*"))]
    assert sizes == [4096, 4096, 1808]
    assert join_file(listed, tmp_path / "again").read_bytes() == path.read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "sent" / "weights.bin.002").rename(elsewhere / "weights.bin.002")
    assert join_file(listed, tmp_path / "third", [elsewhere]).read_bytes() == path.read_bytes()
    (tmp_path / "sent" / "weights.bin.003").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"damaged: weights.bin.002, weights.bin.003"):
        join_file(listed, tmp_path / "fourth")
    assert not (tmp_path / "fourth").exists()


@pytest.mark.slow
def test_a_packed_cache_is_the_cache_around_the_bodies(cache: Path, tmp_path: Path) -> None:
    packed = pack_cache(cache, tmp_path / "cache.zip")
    names = unpack_cache(tmp_path / "cache.zip", tmp_path / "cache")
    assert packed.left_out == [] and sorted(names) == ["ball", "chest", "other", "wide"]
    files = [path for path in cache.glob("*/*.npy")]
    assert packed.bytes < 0.5 * sum(path.stat().st_size for path in files)
    for split in ("training", "validation"):
        for before, after in zip(open_cases(cache, split), open_cases(tmp_path / "cache", split), strict=True):
            np.testing.assert_array_equal(before.body_box, after.body_box)
            for theirs, ours in zip(before.levels, after.levels, strict=True):
                first = np.rint((ours.origin - theirs.origin) / theirs.spacing).astype(int)
                box = tuple(slice(f, f + n) for f, n in zip(first, ours.shape, strict=True))
                np.testing.assert_array_equal(ours.voxels, theirs.voxels[box])
                np.testing.assert_array_equal(ours.anatomy, theirs.anatomy[box])  # type: ignore[index]
                low, high = before.body_box
                end = ours.origin + (np.array(ours.shape) - 0.5) * ours.spacing
                assert (ours.origin - 0.5 * ours.spacing <= low + 0.1).all() and (end >= high - 0.1).all()


@pytest.mark.slow
def test_a_pack_keeps_to_its_size(cache: Path, tmp_path: Path) -> None:
    whole = pack_cache(cache, tmp_path / "whole.zip")
    smaller = pack_cache(cache, tmp_path / "small.zip", most=int(0.9 * whole.bytes))
    assert smaller.left_out and smaller.bytes <= 0.9 * whole.bytes
    assert smaller.cases["validation"] == ["other"] and len(smaller.cases["training"]) < 3
    rounded = pack_cache(cache, tmp_path / "rounded.zip", rounded=4)
    unpack_cache(tmp_path / "rounded.zip", tmp_path / "rounded")
    unpack_cache(tmp_path / "whole.zip", tmp_path / "whole")
    ours, theirs = (open_cases(tmp_path / name, "training")[0].levels[0].voxels for name in ("rounded", "whole"))
    assert rounded.bytes < whole.bytes and np.abs(ours.astype(int) - theirs).max() == 2
    (tmp_path / "small.zip").write_bytes((tmp_path / "small.zip").read_bytes()[:-300])
    with pytest.raises(InputError, match="no packed cache, or damaged"):
        unpack_cache(tmp_path / "small.zip", tmp_path / "nothing")


@pytest.mark.slow
def test_a_program_is_stopped_when_its_time_is_over(tmp_path: Path) -> None:
    begun = time.monotonic()
    sleeper = f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep({60})'])"
    assert run_for([sys.executable, "-c", sleeper], 1.0, tmp_path / "log", alone=True) != 0
    assert run_for([sys.executable, "-c", "print(1)"], 60.0, tmp_path / "log") == 0
    assert time.monotonic() - begun < 30 and (tmp_path / "log").read_text() == "1\n"


@pytest.mark.slow
def test_the_quarter_hour_on_the_cpu(cache: Path, tmp_path: Path) -> None:
    """Pack, train, measure, bring back what can be loaded; a stage that cannot run stops no other."""
    told = call("pack", str(cache), "-o", str(tmp_path / "pack"), "--piece-mib", "0.2")
    assert told["cases"] == {"training": 3, "validation": 0} and max(told["pieces_mib"].values()) <= 0.2
    told = call_as_a_script(
        "run", str(tmp_path / "pack"), "-o", str(tmp_path / "out"), "--device", "cpu", "--steps", "3", "--stages",
        "train", "measure", "collect", "--piece-mib", "0.1", "--pretrain", *TINY,
    )  # fmt: skip
    stages = told["stages"]
    assert stages["unpack"]["cases"] == 3 and stages["train"]["exit_code"] == 0, stages
    assert stages["train"]["steps"] == 3 and float(stages["train"]["throughput"]["utilisation"]) > 0
    parts = stages["measure"]["parts"][0]
    assert parts["windows_per_second"]["make"] > 0 and 0 < parts["share_of_matrix_rate"] < 1
    assert {"model.safetensors", "losses.csv", "train.log"} <= set(stages["collect"]["kept"])
    call("join", str(tmp_path / "out" / "back"), "-o", str(tmp_path / "home"))
    with zipfile.ZipFile(tmp_path / "home" / "back.zip") as archive:
        archive.extract("run/model.safetensors", tmp_path)
    assert read_header(tmp_path / "run" / "model.safetensors")["config"]["training"]["steps"] == 3
    (tmp_path / "pack" / "cache.zip.001").unlink()
    told = call(
        "run",
        str(tmp_path / "pack"),
        "-o",
        str(tmp_path / "second"),
        "--device",
        "cpu",
        "--stages",
        "measure",
        "collect",
    )
    assert "cache.zip.001" in told["stages"]["unpack"]["error"] and told["stages"]["measure"]["state"] != "done"
    assert "There is no cache" in told["stages"]["measure"]["error"]
    assert told["stages"]["collect"]["state"] == "done"


@pytest.mark.slow
@pytest.mark.skipif(not can_pretend(), reason="no GPU can be pretended here")
def test_the_parts_of_a_step_are_measured_on_a_gpu(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedDiffFMLib.training.throughput.matrix_rate", lambda device, dtype: 1e12)
    monkeypatch.setattr(step_parts, "REPEATS", {"cuda": 1})
    with pretend_gpu(autograd=True) as gpu:
        found = step_parts.measure_parts(cache, None, "cuda", 4, TINY)
        assert gpu.peak > 2**20
    assert found["peak_gib"] > 0 and found["windows_per_second"]["network"] > 0
    assert set(found["seconds"]) >= {"plan", "make", "make: voxels", "make: labels", "make: noise", "network"}
