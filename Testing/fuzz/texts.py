"""Attacks by texts of foreign data: escapes that a terminal obeys, formulas that a spreadsheet computes."""

from __future__ import annotations

import csv
import json
import random
import unicodedata
from pathlib import Path

from MedDiffFMLib.core.csv_files import write_csv
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.core.visible_text import visible, visible_json

from .target import Files, Target

PIECES = (
    "\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r", "\n", "\b", "\0", "\x7f", "\u202e", "\u2066", "\u200b", "\u2028",
    "\ufeff", "\ud800", "=1+1", "=cmd|' /C calc'!A0", "+49", "-7.5", "@SUM(A1)", "\t=A1", " =A1", ",", ";", '"', "'",
    "\\x1b", "%s", "Größe", "骨", "🫁", "a\u0301", "",
)  # fmt: skip


class Texts(Target):
    """Names and texts on their way to a screen, a table and a message."""

    name, weight = "text", 2

    def make(self, rng: random.Random) -> Files:
        text = "".join(rng.choice((*PIECES, chr(rng.randrange(0x110000)))) for _ in range(rng.randint(0, 12)))
        return {"text": text.encode("utf-8", "surrogatepass")}

    def read(self, folder: Path) -> None:
        text = (folder / "text").read_bytes().decode("utf-8", "surrogatepass")
        for shown in (visible(text), str(InputError(f"'{text}' is wrong.", "Mend it."))):
            assert not any(_is_obeyed(letter) for letter in shown), "a terminal would obey it"
        message = json.dumps({"name": text}, ensure_ascii=False)
        assert json.loads(visible_json(message)) == {"name": text}, "JSON has another meaning"
        assert not any(_is_obeyed(letter) for letter in visible_json(message)), "a terminal would obey the JSON"
        write_csv([{"name": text}], ["name"], folder / "table.csv")
        with open(folder / "table.csv", newline="", encoding="utf-8") as stream:
            (row,) = csv.DictReader(stream)
        start = row["name"].lstrip()[:1]
        assert start not in ("=", "@") and (start not in ("+", "-") or _is_number(row["name"])), "a formula"


def _is_obeyed(letter: str) -> bool:
    """Judged apart from the program: control characters, half surrogates, marks of direction, separators of lines."""
    marks = "\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in marks


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
