"""The short form: a few hundred hostile inputs of a fixed seed, and every kind of input that once broke a reader."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib import __version__
from MedDiffFMLib.core.errors import InputError, MedDiffFMError, ModelError
from MedDiffFMLib.datasets.datalist import folder_name, read_datalist
from MedDiffFMLib.datasets.dataset_folder import Dataset
from MedDiffFMLib.datasets.prepared_cases import open_cases
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.models import catalogue
from MedDiffFMLib.models.checkpoint import load_denoiser
from MedDiffFMLib.models.entry import FOLDER_VARIABLE
from MedDiffFMLib.runner.case_search import find_cases
from MedDiffFMLib.runner.reproduce import repeat
from MedDiffFMLib.runner.settings import RunSettings
from MedDiffFMLib.worker.client import Callbacks, RunRequest, State, WorkerSession
from MedDiffFMLib.worker.protocol import PROTOCOL_VERSION, PrivateFolder, ProtocolError

from .__main__ import fuzz, table
from .attack import TARGETS
from .lists import Prepared, Report
from .mutations import changed_bytes, changed_json
from .volumes import small_ct
from .weights import packed

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory limits and audit of Linux")
MODEST = 64_000_000
"""Bytes that reading a small file may take at most; two portions of 16 MB, and then some."""
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.slow
@linux
def test_hostile_input_is_read_or_refused() -> None:
    tally = fuzz(300, seed=1)
    assert tally.inputs == 300 and not tally.failures, tally.failures[:5]
    assert not tally.left and len({target for target, _ in tally.counts}) == len(TARGETS), table(tally)
    assert sum(count for (_, verdict), count in tally.counts.items() if verdict == "read") > 30, "nothing gets through"


def test_an_input_is_a_function_of_its_number() -> None:
    import random

    assert changed_bytes(b"abc 12 def" * 9, random.Random("x")) == changed_bytes(b"abc 12 def" * 9, random.Random("x"))
    assert len({changed_json({"a": [1, {"b": 2}]}, random.Random(n)) for n in range(50)}) > 30


# What once broke a reader


def refused(path: Path, kind: type[MedDiffFMError] = InputError) -> str:
    tracemalloc.start()
    try:
        with pytest.raises(kind) as caught:
            read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < MODEST
    finally:
        tracemalloc.stop()
    assert caught.value.remedy and not isinstance(caught.value.__cause__, MemoryError)
    return caught.value.cause


def nrrd(encoding: str, data: bytes, *extra: str) -> bytes:
    lines = ["NRRD0004", "type: int16", "dimension: 3", "sizes: 9 8 7", "endian: little", "spacings: 1 1 1", *extra]
    return "\n".join([*lines, f"encoding: {encoding}"]).encode() + b"\n\n" + data


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_compressed_voxels_beyond_the_promise_stay_packed(
    encoding: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """A bomb: 100 MB in a few hundred kB or less, where the header names 1 kB."""
    path = tmp_path / "in.nrrd"
    path.write_bytes(nrrd(encoding, pack(bytes(100_000_000))))
    assert "do not fill" in refused(path)
    path.write_bytes(nrrd(encoding, pack(small_ct().voxels.tobytes())))
    assert np.array_equal(read_volume(path).voxels, small_ct().voxels)


def test_skips_are_those_that_the_file_has(tmp_path: Path) -> None:
    path, voxels = tmp_path / "in.nrrd", small_ct().voxels.astype("<i2")
    for extra, data in (
        (("line skip: 2", "byte skip: 3"), b"a\nb\nxyz" + voxels.tobytes()),
        (("byte skip: -1",), b"anything" + voxels.tobytes()),
        (("byteskip: 4",), b"1234" + voxels.tobytes()),
    ):
        path.write_bytes(nrrd("raw", data, *extra))
        assert np.array_equal(read_volume(path).voxels, voxels)
    path.write_bytes(nrrd("gzip", gzip.compress(b"123" + voxels.tobytes()), "byte skip: 3"))
    assert np.array_equal(read_volume(path).voxels, voxels)
    for extra in ("line skip: 1000000000000", "byte skip: 1000000000000", "line skip: -1", "byte skip: -7"):
        path.write_bytes(nrrd("raw", voxels.tobytes(), extra))
        assert "do not fill" in refused(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("place", "number"), [(352, 2**31 - 1), (108, 0x7F000000)], ids=["extension", "offset"])
def test_nifti_extension_of_gigabytes(suffix: str, place: int, number: int, tmp_path: Path) -> None:
    path = tmp_path / f"in{suffix}"
    write_volume(small_ct(), path)
    content = bytearray(gzip.decompress(path.read_bytes()) if suffix == ".nii.gz" else path.read_bytes())
    if place == 352:
        content[108:112] = np.float32(1024).tobytes()
        content[348:352] = b"\1\0\0\0"
        content[352:352] = bytes(1024 - 352)
    content[place : place + 4] = number.to_bytes(4, "little")
    path.write_bytes(gzip.compress(bytes(content)) if suffix == ".nii.gz" else bytes(content))
    refused(path)


def series(folder: Path) -> list[Path]:
    from Testing.unit.imaging.test_dicom import write_series

    return write_series(folder)


def test_damaged_dicom_is_refused_and_not_left_out(tmp_path: Path) -> None:
    """Without its damaged last slice the series would look whole, and shorter."""
    paths = series(tmp_path / "ct")
    content = paths[0].read_bytes()
    at = content.index(b"\x02\x00\x00\x00UL") + 8
    paths[0].write_bytes(content[: at - 2] + b"\xff\x7f" + content[at:])
    assert "cannot be read" in refused(tmp_path / "ct")


def test_dicom_element_of_gigabytes(tmp_path: Path) -> None:
    paths = series(tmp_path / "ct")
    for path in paths:
        content = path.read_bytes()
        at = content.index(b"\xe0\x7f\x10\x00OW") + 8
        path.write_bytes(content[:at] + (2**31 - 2).to_bytes(4, "little") + content[at + 4 : -2])
    refused(tmp_path / "ct")


@pytest.mark.slow
def test_deflated_dicom_is_not_inflated(tmp_path: Path) -> None:
    path = series(tmp_path / "ct")[0]
    content = path.read_bytes()
    at = content.index(b"1.2.840.10008.1.2.1\0") - 2
    head = content[:at] + b"\x16\0" + b"1.2.840.10008.1.2.1.99" + content[at + 22 : content.index(b"\x08\x00\x16\x00")]
    packer = zlib.compressobj(9, wbits=-15)
    path.write_bytes(head + packer.compress(bytes(100_000_000)) + packer.flush())
    assert "deflated" in refused(path)


@pytest.mark.parametrize(
    "row",
    [
        '{"image": "a\\u0000b"}',
        '{"image": "\\ud800"}',
        '{"image": "a", "label": 5}',
        '{"image": "a", "label": ["x"]}',
        '{"image": []}',
        DEEP,
    ],
)
def test_datalist_with_odd_values(row: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(f'{{"training": [{row}]}}')
    with pytest.raises(InputError) as caught:
        read_datalist(tmp_path / "list.json")
    assert caught.value.remedy


def test_names_of_any_length_become_folders_that_differ(tmp_path: Path) -> None:
    names = [folder_name(name) for name in ("é" * 200, "é" * 201, "../../x", "a" * 500, "\ud800", "..", "a\0b")]
    assert len(set(names)) == len(names) - 1, "only those without a letter are called alike"
    for name in names:
        (tmp_path / f".{name}.12345678.partial").mkdir(exist_ok=True)
    assert not [name for name in names if "/" in name or name.startswith(".")]


@pytest.mark.parametrize("content", [DEEP, '{"validation": 5}', '{"validation": [[]]}', "[1]"])
def test_dataset_with_odd_settings(content: str, tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "ours")
    (tmp_path / "ours" / "dataset.json").write_text(content)
    assert dataset.cases() == [] and dataset.title


@pytest.mark.parametrize(
    "change", [{"hashes": {"image": "x", "../../../outside": "x"}}, {"patient": 3.5}, {"labels": 7}, {"region": []}]
)
def test_case_with_odd_record_is_damaged(change: dict[str, object], tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "ours")
    dataset.add("c", small_ct())
    path = tmp_path / "ours" / "cases" / "c" / "case.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    cases, damaged = dataset.scan()
    assert cases == [] and list(damaged) == ["c"]


@pytest.mark.parametrize("content", [DEEP, '{"training": [["x"]]}', '{"training": ["../x"]}', '{"training": 3}'])
def test_prepared_cases_with_odd_index(content: str, tmp_path: Path) -> None:
    (tmp_path / "cases.json").write_text(content)
    with pytest.raises(InputError):
        open_cases(tmp_path, "training")


def test_prepared_case_whose_array_is_a_number(tmp_path: Path) -> None:
    Prepared(tmp_path)
    array = next((tmp_path / "cache").rglob("*[0-9].npy"), None) or next((tmp_path / "cache").rglob("*.npy"))
    np.save(array, np.int16(3))
    with pytest.raises(InputError):
        open_cases(tmp_path / "cache", "training")


def test_prepared_case_without_levels(tmp_path: Path) -> None:
    Prepared(tmp_path)
    record = next((tmp_path / "cache").rglob("case.json"))
    record.write_text(json.dumps({**json.loads(record.read_text()), "levels": []}))
    with pytest.raises(InputError, match="has no level"):
        open_cases(tmp_path / "cache", "training")


def test_an_input_does_not_depend_on_those_before() -> None:
    """A value that one input put somewhere and changed must be as it was for the next, or no input can be repeated."""
    fresh = [changed_json({"a": [1, {}]}, random.Random(number)) for number in (5, 6)]
    for number in range(2000):
        changed_json({"a": [1, {}]}, random.Random(number))
    assert [changed_json({"a": [1, {}]}, random.Random(number)) for number in (5, 6)] == fresh


def test_list_of_a_batch_that_names_the_root(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.nrrd\n/\n")
    with pytest.raises(InputError, match="has no name"):
        find_cases([tmp_path / "list.txt"], "denoise")


def test_report_with_a_path_that_no_system_has(tmp_path: Path) -> None:
    content = {**Report.content, "inputs": {"volume": {"path": "a" * 5000, "sha256": "0" * 64}}}
    (tmp_path / "x_denoise.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is gone"):
        repeat(tmp_path / "x_denoise.json")


def test_list_of_a_batch_with_a_nul(tmp_path: Path) -> None:
    for suffix in (".txt", ".csv"):
        (tmp_path / f"list{suffix}").write_bytes(b"input\na\0b.nrrd\n")
        with pytest.raises(InputError):
            find_cases([tmp_path / f"list{suffix}"], "denoise")


def weights_with(network: dict[str, object], valid: Path, path: Path) -> Path:
    """The weights of ``valid`` with another description."""
    content = valid.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    config = json.loads(header["__metadata__"]["config"])
    header["__metadata__"]["config"] = json.dumps({**config, "network": {**config["network"], **network}})
    path.write_bytes(packed(json.dumps(header).encode(), content[8 + length :]))
    return path


@pytest.mark.parametrize(
    "network",
    [
        {"channels": [8192, 8192, 8192], "attention": [False] * 3},
        {"channels": [8] * 100_000},
        {"blocks": 10**9},
        {"groups": 0},
        {"channels": ["8"]},
        {"attention": None},
        {"channels": 5},
    ],
    ids=["terabytes", "levels", "blocks", "groups", "text", "none", "number"],
)
def test_impossible_network(network: dict[str, object], tiny_model_file: Path, tmp_path: Path) -> None:
    path = weights_with(network, tiny_model_file, tmp_path / "in.safetensors")
    with pytest.raises(ModelError) as caught:
        load_denoiser(path)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": "x"},
        {"licence": []},
        {"file": ".."},
        {"file": "../outside"},
        {"file": "other.12345678.safetensors"},
        {"card": "outside"},
        {"file": "ours.\0"},
        {"prior": 5},
    ],
)
def test_entry_of_a_model_that_is_not_its_own(
    change: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from .weights import Catalogue

    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "other.12345678.safetensors").write_bytes(b"keep")
    (tmp_path / "ours.json").write_text(json.dumps(Catalogue.content))
    assert [entry.name for entry in catalogue.list_models() if entry.is_own] == ["ours"]
    (tmp_path / "ours.json").write_text(json.dumps({**Catalogue.content, **change}))
    assert not [entry for entry in catalogue.list_models() if entry.is_own]
    with pytest.raises(InputError):
        catalogue.remove_model("ours")
    assert (tmp_path / "other.12345678.safetensors").exists()


def arrays() -> dict[str, bytes]:
    """Files that are no plain array."""
    objects, archive, promise = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(objects, np.array([None], dtype=object), allow_pickle=True)
    np.savez(archive, a=np.zeros(3))
    np.lib.format.write_array_header_1_0(promise, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})
    nested = objects.getvalue()[:10] + b"(" * 100 + objects.getvalue()[110:]
    broken = objects.getvalue()[:10] + b"{'descr': (((" + objects.getvalue()[23:]
    return {
        "objects": objects.getvalue(),
        "archive": archive.getvalue(),
        "promise": promise.getvalue(),
        "header": broken,
        "nested": nested,
        "zip": b"PK\3\4",
        "empty": b"",
    }


@pytest.mark.parametrize("name", list(arrays()))
def test_array_that_is_none(name: str, tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path)
    (folder.path / "in.npy").write_bytes(arrays()[name])
    for mapped in (False, True):
        with pytest.raises(ProtocolError) as caught:
            folder.load("in.npy", mapped)
        assert caught.value.remedy


def test_progress_that_no_float_can_hold() -> None:
    session = WorkerSession(lambda _: None, lambda: None, Callbacks())
    session.starting()
    session.process_started()
    hello = {"type": "hello", "protocol": PROTOCOL_VERSION, "package": __version__}
    session.feed(json.dumps(hello).encode() + b"\n")
    session.run(RunRequest(RunSettings("synthesize")))
    session.feed(
        json.dumps({"type": "progress", "id": 1, "fraction": 10**400, "stage": "", "seconds_left": 1}).encode()
    )
    session.feed(b"\n")
    assert session.state is State.FAILED


@pytest.mark.slow
@pytest.mark.parametrize("number", [27911, 29059, 57446])
def test_reports_of_runs_that_can_be_repeated(number: int) -> None:
    """Parameters, an output or its hash of an odd type: tracebacks of the run of 100,000 with seed 3."""
    tally = fuzz(1, seed=3, first=number, targets=["report"])
    assert tally.inputs == 1 and not tally.failures, tally.failures
