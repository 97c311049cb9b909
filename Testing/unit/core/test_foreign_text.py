"""Foreign text: no terminal, spreadsheet or screen obeys it."""

from __future__ import annotations

import csv
import json
import logging
import unicodedata
import warnings
from pathlib import Path

import pytest

from MedDiffFMLib.cli.console import Console
from MedDiffFMLib.core import library_messages
from MedDiffFMLib.core.csv_files import write_csv
from MedDiffFMLib.core.errors import InputError, log_defect
from MedDiffFMLib.core.progress import CancelToken, ProgressEvent
from MedDiffFMLib.core.text_table import columns

HOSTILE = "\x1b]0;title\x07\x1b[31mred\x9b2J\r\nsecond\tline\u202egnp.\u2028\udcff"


def _obeyed(text: str) -> list[str]:
    return [letter for letter in text if letter != "\n" and unicodedata.category(letter)[0] in "CZ" and letter != " "]


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_foreign_reaches_the_terminal(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=as_json, quiet=False, cancel=CancelToken())
    console.progress(ProgressEvent(0.5, HOSTILE, None))
    console.note(HOSTILE)
    console.warning(HOSTILE)
    console.failure(InputError(HOSTILE, HOSTILE))
    if not as_json:
        console.answer({}, columns([["a", "b"], [HOSTILE, "Zoë Müller-Łoś 胸部 می\u200cخواهم"]]))
    shown = capsys.readouterr()
    assert not _obeyed(shown.err) and not _obeyed(shown.out.replace("\u200c", ""))
    assert shown.err.count("\n") == 4 and "\\x1b[31mred\\x9b2J\\r\\nsecond" in shown.err
    if as_json:
        assert json.loads(shown.out)["cause"] == InputError(HOSTILE).cause
    else:
        assert shown.out.count("\n") == 2 and "Zoë Müller-Łoś 胸部 می\u200cخواهم" in shown.out


def test_json_means_what_it_meant(capsys: pytest.CaptureFixture[str]) -> None:
    Console(as_json=True, quiet=True, cancel=CancelToken()).answer({"title": HOSTILE}, "")
    shown = capsys.readouterr().out
    assert not _obeyed(shown) and json.loads(shown)["title"] == HOSTILE


def test_no_cell_is_a_formula_and_numbers_stay_numbers(tmp_path: Path) -> None:
    values = ["=1+1", "+1", "-2.5", "@SUM(A1)", "-x", "  =cmd()", "\t=1", HOSTILE, -2.5, "plain", None]
    write_csv([{"value": value} for value in values], ["value"], tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as stream:
        cells = [row["value"] for row in csv.DictReader(stream)]
    assert cells[:7] == ["'=1+1", "+1", "-2.5", "'@SUM(A1)", "'-x", "'  =cmd()", "\\t=1"]
    assert cells[8:] == ["-2.5", "plain", ""] and not _obeyed(cells[7])


def test_what_libraries_say_goes_to_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    nibabel = pytest.importorskip("nibabel")
    with library_messages.kept():
        nibabel.imageglobals.logger.warning("pixdim[1,2,3] should be non-zero")
        logging.getLogger("pydicom").error("no\nfile meta")
        warnings.warn("deprecated", stacklevel=1)
    assert capfd.readouterr().err == ""
    log_defect(ValueError("strange"))
    (log,) = tmp_path.glob("*.log")
    text = log.read_text(encoding="utf-8")
    assert "WARNING nibabel.global: pixdim[1,2,3]" in text and "ERROR pydicom: no file meta" in text
    assert "deprecated" in text and "ValueError: strange" in text
