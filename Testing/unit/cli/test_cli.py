"""The command line's promises: exit codes, streams, and what is left in the output folder."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.cli.carry_out import _interrupts
from MedDiffFMLib.cli.console import Console, duration
from MedDiffFMLib.cli.main import build_parser
from MedDiffFMLib.core.errors import MedDiffFMError, OutputError
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.core.text_table import columns
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.runner.report import NOTICE
from MedDiffFMLib.tasks.anomaly.findings import list_findings
from MedDiffFMLib.tasks.anomaly.spec import COLUMNS
from MedDiffFMLib.tasks.inputs import REQUIRED
from MedDiffFMLib.tasks.parameters import describe
from MedDiffFMLib.tasks.registry import TASKS


@pytest.fixture
def common(tiny_model_file: Path) -> list[str]:
    """Options of every run here."""
    return ["--model", str(tiny_model_file), "--device", "cpu", "--threads", "1"]


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden and staged things included."""
    return sorted(path.name for path in folder.iterdir())


# Built from the tables


def test_every_task_and_parameter_has_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    for task in TASKS.values():
        assert main([task.name, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert task.sentence in shown and NOTICE in shown
        for field, info in describe(task):
            assert "--" + field.name.replace("_", "-") in shown
            assert info.help in shown, "the help text is that of the dataclass"


def test_help_needs_no_torch() -> None:
    code = "import sys; from MedDiffFMLib.cli import main; main(['info', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


# Good runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("denoise", ["--noise", "20"]),
        ("anomaly", ["--threshold", "2"]),
        ("inpaint", ["--steps", "2", "--samples", "1"]),
    ],
)
def test_run_writes_what_the_table_says_and_repeats_to_the_same_bits(
    task: str,
    options: list[str],
    common: list[str],
    small_ct_file: Path,
    small_mask_file: Path,
    small_ct: Volume,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mask = ["--mask", str(small_mask_file)] if TASKS[task].inputs.mask is REQUIRED else []
    assert main([task, str(small_ct_file), "-o", str(tmp_path), "--seed", "3", *mask, *options, *common]) == 0
    shown = capsys.readouterr()
    main_name, *others = [output.name for output in TASKS[task].volumes()]
    expected = [f"chest_{task}.json", f"chest_{task}.nrrd", *(f"chest_{task}_{name}.nrrd" for name in others)]
    expected += [f"chest_{task}_{table.name}.csv" for table in TASKS[task].tables()]
    assert names(tmp_path) == sorted(expected) == sorted(Path(line).name for line in shown.out.split())
    assert NOTICE in shown.err and "100%" in shown.err
    for path in tmp_path.glob("*.nrrd"):
        assert read_volume(path).same_geometry(small_ct)

    report = json.loads((tmp_path / f"chest_{task}.json").read_text())
    assert list(report["outputs"])[0] == main_name and report["settings"]["seed"] == 3
    assert main(["repeat", str(tmp_path / f"chest_{task}.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["identical"] is True


QUICK = ["--spacing", "2.5", "--whole-steps", "2"]


def test_synthesis_is_marked_and_repeats_to_the_same_bits(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--size", "60", "62.5", "65"]
    options = [*size, *QUICK, "--seed", "3", "--region", "abdomen"]
    assert main(["synthesize", "-o", str(tmp_path), *options, *common]) == 0
    shown = capsys.readouterr()
    assert names(tmp_path) == ["synthesize_seed3.json", "synthesize_seed3.nrrd"]
    assert NOTICE in shown.err and "100%" in shown.err
    made = read_volume(tmp_path / "synthesize_seed3.nrrd")
    assert made.synthetic and made.voxels.dtype == np.int16 and made.voxels.shape == (26, 25, 24)
    assert np.allclose(made.ijk_to_ras @ [11.5, 12, 12.5, 1], [0, 0, 0, 1])

    report = json.loads((tmp_path / "synthesize_seed3.json").read_text())
    assert report["synthetic"] is True and report["inputs"] == {} and report["facts"]["region"] == "abdomen"
    assert report["settings"]["parameters"]["size"] == [60.0, 62.5, 65.0]
    assert main(["repeat", str(tmp_path / "synthesize_seed3.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["identical"] is True


@pytest.mark.slow
def test_synthesis_on_the_grid_of_an_anatomy_map_repeats_too(
    common: list[str], small_ct: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = small_ct.with_voxels(np.where(small_ct.voxels > -500, 118, 0).astype(np.uint8))
    write_volume(labels, tmp_path / "body.nii.gz", mask=True)
    run = ["synthesize", "--anatomy", str(tmp_path / "body.nii.gz"), "-o", str(tmp_path / "out")]
    assert main([*run, "--whole-steps", "1", "--quiet", *common]) == 0
    assert names(tmp_path / "out") == ["body_synthesize.json", "body_synthesize.nii.gz"]
    made = read_volume(tmp_path / "out" / "body_synthesize.nii.gz")
    assert made.same_geometry(small_ct) and made.synthetic
    assert main(["repeat", str(tmp_path / "out" / "body_synthesize.json"), "--quiet"]) == 0
    write_volume(labels.with_voxels(np.roll(labels.voxels, 3, 1)), tmp_path / "body.nii.gz", mask=True, overwrite=True)
    capsys.readouterr()
    assert main(["repeat", str(tmp_path / "out" / "body_synthesize.json"), "--quiet"]) == 2
    assert "The anatomy" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_made_of_a_synthetic_ct_is_synthetic_too(
    common: list[str], small_ct: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.nrrd"
    write_volume(Volume(small_ct.voxels, small_ct.ijk_to_ras, synthetic=True), source)
    assert main(["info", str(source)]) == 0
    assert "This CT is synthetic, in whole or in part: it shows no patient as scanned." in capsys.readouterr().out
    assert main(["denoise", str(source), "-o", str(tmp_path / "out.nrrd"), "--quiet", *common]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["synthetic"] is True and "synthetic" in report["warnings"][0]
    assert read_volume(tmp_path / "out.nrrd").synthetic


@pytest.mark.slow
def test_findings_have_their_columns(common: list[str], small_ct_file: Path, tmp_path: Path) -> None:
    for threshold, some in (("0.5", True), ("50", False)):
        output = tmp_path / f"z{threshold}.nrrd"
        options = ["--threshold", threshold, "--minimum-volume", "0", "--quiet"]
        assert main(["anomaly", str(small_ct_file), "-o", str(output), *options, *common]) == 0
        with open(tmp_path / f"z{threshold}_findings.csv", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        assert len(rows) == json.loads((tmp_path / f"z{threshold}.json").read_text())["findings"]
        assert bool(rows) is some


def test_columns_are_those_of_the_findings(small_ct: Volume) -> None:
    score = np.zeros(small_ct.voxels.shape)
    score[3:6, 3:6, 3:6] = 9
    assert tuple(list_findings(score, small_ct, 4, 0)[0]) == COLUMNS


@pytest.mark.slow
def test_json_is_the_only_thing_on_stdout(
    common: list[str], small_ct_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["denoise", str(small_ct_file), "-o", str(tmp_path), "--json", *common]
    assert main(arguments) == 0
    done = json.loads(capfd.readouterr().out)
    assert done["status"] == "done" and done["outputs"]["denoised"]["sha256"] and Path(done["report_file"]).is_file()
    assert main(arguments) == 2
    shown = capfd.readouterr()
    failed = json.loads(shown.out)
    assert (failed["status"], failed["kind"], failed["exit_code"]) == ("error", "output", 2)
    assert "--overwrite" in failed["remedy"] and failed["cause"] in shown.err


@pytest.mark.slow
def test_output_follows_the_input_or_the_wish(common: list[str], small_ct: Volume, tmp_path: Path) -> None:
    source = tmp_path / "in.nii.gz"
    write_volume(small_ct, source)
    arguments = ["denoise", str(source), "--quiet", *common]
    assert main([*arguments, "-o", str(tmp_path / "a")]) == 0
    assert names(tmp_path / "a") == ["in_denoise.json", "in_denoise.nii.gz", "in_denoise_noise.nii.gz"]
    assert main([*arguments, "-o", str(tmp_path / "b" / "clean.nrrd")]) == 0
    assert names(tmp_path / "b") == ["clean.json", "clean.nrrd", "clean_noise.nrrd"]


def test_info(small_ct_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(small_ct_file), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["shape_ijk"] == [44, 48, 40] and facts["spacing_mm"] == [3.0, 3.0, 3.0] and facts["minimum"] == -1024
    assert main(["info", str(small_ct_file)]) == 0
    assert "132 x 144 x 120 mm" in capsys.readouterr().out


# Refusals


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "COMMAND"),
        (["dance"], 2, "invalid choice"),
        (["denoise"], 2, "Give one INPUT, or --batch"),
        (["denoise", "CT", "--noise", "9999"], 2, "Allowed are 0.5 to 500 HU."),
        (["denoise", "CT", "--steps", "many"], 2, "invalid int value"),
        (["denoise", "CT", "--mask", "MASK"], 2, "unrecognized arguments: --mask"),
        (["denoise", "CT", "--region", "knee"], 2, "invalid choice"),
        (["denoise", "CT", "--seed", "-1"], 2, "seed is -1"),
        (["denoise", "CT", "--threads", "0"], 2, "threads is 0"),
        (["denoise", "CT", "-o", "x.dcm"], 2, "Use .nrrd, .nii, .nii.gz"),
        (["denoise", "/no/such.nrrd"], 2, "no file or folder '/no/such.nrrd'"),
        (["denoise", "CT", "--anatomy", "CT"], 2, "anatomy mask holds values"),
        (["denoise", "CT", "--batch", "CT"], 2, "exclude each other"),
        (["inpaint", "CT"], 2, "--mask"),
        (["inpaint", "CT", "--mask", "/no/such.nrrd"], 2, "no file or folder '/no/such.nrrd'"),
        (["denoise", "CT", "--model", "/no/such.safetensors"], 3, "no weight file"),
        (["denoise", "CT", "--model", "nobody"], 3, "no model called 'nobody'"),
        (["denoise", "CT", "--device", "cuda:77"], 3, "cuda:77"),
        (["denoise", "CT", "--device", "toaster"], 2, "toaster"),
        (["synthesize", "CT"], 2, "synthesize makes a CT and takes none."),
        (["synthesize", "--batch", "CT"], 2, "run it once for each seed"),
        (["synthesize", "--mask", "MASK"], 2, "unrecognized arguments: --mask"),
        (["synthesize", "--size", "300", "300"], 2, "expected 3 arguments"),
        (["synthesize", "--size", "0", "300", "300"], 2, "Allowed are 20 to 2000 mm."),
        (["synthesize", "--size", "300", "300", "5000"], 2, "size is 5000.0 mm"),
        (["synthesize", "--size", "20", "20", "20", "--spacing", "20"], 2, "holds only 1 x 1 x 1 voxels of 20 mm"),
        (["synthesize", "--size", "2000", "2000", "2000", "--spacing", "0.5"], 2, "64000 million voxels"),
        (["synthesize", "--region", "knee"], 2, "invalid choice"),
        (["synthesize", "--anatomy", "CT"], 2, "anatomy mask holds values"),
        (["synthesize", "--anatomy", "MASK", "--spacing", "3"], 2, "Leave out --size and --spacing."),
        (["info", "MASK"], 2, "44 x 48 x 40 voxels: The values"),
        (["repeat", "CT"], 2, "not a JSON file"),
    ],
)
def test_refusal_has_its_code_one_line_and_leaves_nothing(
    arguments: list[str],
    code: int,
    words: str,
    tiny_model_file: Path,
    small_ct_file: Path,
    small_mask_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"CT": str(small_ct_file), "MASK": str(small_mask_file)}
    given = [files.get(argument, argument) for argument in arguments]
    if given[:1] in (["denoise"], ["inpaint"], ["synthesize"]):
        given += [] if "--model" in given else ["--model", str(tiny_model_file)]
    assert main(given) == code
    shown = capsys.readouterr()
    assert words in shown.err and "Traceback" not in shown.err and shown.out == ""
    if "usage:" not in shown.err:
        assert shown.err.count("meddifffm: error:") == 1
    assert names(tmp_path) == []


@pytest.mark.slow
def test_existing_output_is_refused_before_anything_is_read_and_replaced_on_wish(
    common: list[str],
    small_ct_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "chest_denoise_noise.nrrd").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr("MedDiffFMLib.runner.case.read_volume", lambda *_: pytest.fail("it was read first"))
        assert main(["denoise", str(small_ct_file), "-o", str(tmp_path), *common]) == 2
    assert "chest_denoise_noise.nrrd' exists already" in capsys.readouterr().err
    assert (tmp_path / "chest_denoise_noise.nrrd").read_text() == "mine"
    assert main(["denoise", str(small_ct_file), "-o", str(tmp_path), "--overwrite", "--quiet", *common]) == 0
    assert len(names(tmp_path)) == 3 and read_volume(tmp_path / "chest_denoise_noise.nrrd").voxels.any()


@pytest.mark.slow
def test_nothing_is_left_when_the_second_file_cannot_be_written(
    common: list[str],
    small_ct_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from MedDiffFMLib.runner import outputs

    real, written = outputs.write_volume, []

    def full(volume: Volume, path: Path, **options: object) -> None:
        if written:
            raise OutputError("The disk is full.", "Free some space.")
        written.append(path)
        real(volume, path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(outputs, "write_volume", full)
    assert main(["denoise", str(small_ct_file), "-o", str(tmp_path), "--quiet", *common]) == 2
    assert "The disk is full." in capsys.readouterr().err
    assert written and names(tmp_path) == []


def test_unforeseen_failure_is_one_line_that_names_a_log(
    common: list[str],
    small_ct_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("MedDiffFMLib.runner.case.check_volume", lambda *_: 1 / 0)
    assert main(["denoise", str(small_ct_file), "-o", str(tmp_path / "out"), "--json", *common]) == 1
    shown = capsys.readouterr()
    (log,) = tmp_path.glob("meddifffm-error-*.log")
    assert "ZeroDivisionError" in shown.err and str(log) in shown.err and "Traceback" not in shown.err
    assert json.loads(shown.out)["kind"] == "internal" and "Traceback" in log.read_text()


@pytest.mark.slow
def test_repeat_notices_what_changed(
    common: list[str], small_ct: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, report = tmp_path / "ct.nrrd", tmp_path / "out.json"
    write_volume(small_ct, source)
    assert main(["denoise", str(source), "-o", str(tmp_path / "out.nrrd"), "--quiet", *common]) == 0
    told = json.loads(report.read_text())
    told["outputs"]["noise"]["sha256"] = "0" * 64
    report.write_text(json.dumps(told))
    assert main(["repeat", str(report), "--quiet"]) == 3
    assert "noise: DIFFERENT" in capsys.readouterr().out
    write_volume(small_ct.with_voxels(small_ct.voxels + 1), source, overwrite=True)
    assert main(["repeat", str(report)]) == 2
    assert "was changed since the report" in capsys.readouterr().err


# Signals


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_with_130_and_leaves_nothing(
    number: int, common: list[str], small_ct_file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "MedDiffFMLib", "denoise", str(small_ct_file), "-o", str(tmp_path)]
    with subprocess.Popen([*command, "--steps", "100", *common], stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        while "%" not in (line := child.stderr.readline()):
            assert line, "it ended before it was interrupted"
        child.send_signal(number)
        rest = child.stderr.read()
        assert child.wait(60) == 130
    assert "Cancelled." in rest and "100%" not in rest and "Traceback" not in rest
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_second_interrupt_does_not_wait_for_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    before, cancel = signal.getsignal(signal.SIGINT), CancelToken()
    console = Console(as_json=False, quiet=False, cancel=cancel)
    with pytest.raises(KeyboardInterrupt), _interrupts(cancel, console):
        os.kill(os.getpid(), signal.SIGINT)
        assert cancel.cancelled, "the first one only asks"
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second one did nothing")
    assert signal.getsignal(signal.SIGINT) is before and "interrupt again" in capsys.readouterr().err


class InterruptedOnce(io.RawIOBase):
    """A file in whose first write Ctrl-C comes."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.written:
            os.kill(os.getpid(), signal.SIGINT)
        self.written += bytes(data)
        return len(data)


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_an_interrupt_in_the_middle_of_a_line_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    file, cancel = InterruptedOnce(), CancelToken()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(file), write_through=True))
    console = Console(as_json=False, quiet=False, cancel=cancel)
    with _interrupts(cancel, console):
        console.note("Working.")
    assert cancel.cancelled
    assert file.written == b"Working.\nCancelling; interrupt again to stop at once.\n"


# Memory


@pytest.mark.slow
def test_memory_shortage_is_survived_shown_and_reported(
    common: list[str],
    small_ct_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from MedDiffFMLib.inference.engine import Engine

    real, failed = Engine.denoise, []

    def short_of_memory(self: Engine, *arguments: object) -> object:
        if not failed:
            failed.append(True)
            raise MemoryError
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "denoise", short_of_memory)
    assert main(["denoise", str(small_ct_file), "-o", str(tmp_path), "--prior", *common]) == 0
    (warning,) = json.loads((tmp_path / "chest_denoise.json").read_text())["warnings"]
    assert failed and "Memory ran out" in warning and f"Warning: {warning}" in capsys.readouterr().err


# Small things


def test_options_of_a_sub_command_are_unique() -> None:
    """argparse notices clashes between parameter names and general options only when the parser is built."""
    build_parser()


def test_texts() -> None:
    assert [duration(s) for s in (0, 59.6, 3723)] == ["0:00", "1:00", "1:02:03"]
    assert columns([["a", "bb"], ["ccc", "d"]]) == "a    bb\nccc  d"
    assert str(MedDiffFMError("Cause.", "Remedy.")) == "Cause. Remedy."


@pytest.mark.slow
def test_info_says_what_a_task_says_and_force_goes_on(
    common: list[str], small_ct: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(small_ct.with_voxels((np.abs(small_ct.voxels) % 900 + 300).astype(np.int16)), tmp_path / "bone.nrrd")
    run = ["denoise", str(tmp_path / "bone.nrrd"), "-o", str(tmp_path / "out"), "--noise", "20", "--json", *common]
    assert main(run) == main(["info", str(tmp_path / "bone.nrrd")]) == 2
    assert "goes on with --force" in capsys.readouterr().err
    assert main([*run, "--force"]) == 0
    said = json.loads(capsys.readouterr().out)["warnings"]
    assert main(["info", str(tmp_path / "bone.nrrd"), "--json", "--force"]) == 0
    assert set(json.loads(capsys.readouterr().out)["warnings"]) <= set(said)
    assert any("do not look like CT" in sentence for sentence in said)
    assert main(["repeat", str(tmp_path / "out" / "bone_denoise.json"), "--json"]) == 0
