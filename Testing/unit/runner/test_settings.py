"""Settings of a run: one declaration, one check, one text in reports and in messages to the worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import MedDiffFMLib as mdf
from MedDiffFMLib.cli import main
from MedDiffFMLib.runner.settings import RunSettings
from MedDiffFMLib.tasks.denoise.spec import Denoise
from MedDiffFMLib.tasks.inpaint.spec import Inpaint
from MedDiffFMLib.worker.protocol import encode
from MedDiffFMLib.worker.server import _settings as settings_of_message

AS_TEXT = (
    '{"task": "denoise", "parameters": {"noise": 20.0}, "seed": 7, "region": null, "model": "starter-ct", '
    '"device": "auto", "precision": "auto", "threads": 2}'
)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"seed": -1}, "seed is -1. Give 0 or more, below 2^63."),
        ({"seed": 2**63}, f"seed is {2**63}. Give 0 or more, below 2^63."),
        ({"threads": 0}, "threads is 0. Give 1 to "),
        ({"noise": -1.0}, "noise is -1.0 HU. Allowed are "),
    ],
)
def test_every_door_refuses_with_the_same_words(
    values: dict[str, Any], words: str, small_ct_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Command line, Python and worker, before a model is looked for."""
    (name, value), *_ = values.items()
    assert main(["denoise", str(small_ct_file), "--model", "none-such", f"--{name}", str(value)]) == 2
    assert words in capsys.readouterr().err
    message = {"task": "denoise", **({"parameters": values} if name == "noise" else values)}
    with pytest.raises(mdf.InputError) as of_worker:
        settings_of_message(message)
    assert words in str(of_worker.value)
    if name != "threads":  # which a Python program sets in torch
        with pytest.raises(mdf.InputError) as of_python:
            mdf.denoise(small_ct_file, "none-such", **values)
        assert str(of_python.value) == str(of_worker.value)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"task": "denoising"}, "no task 'denoising'"),
        ({"task": ["denoise"]}, "no task"),
        ({"region": "thorax"}, "no region 'thorax'. Known are: head-neck, .*, none"),
        ({"region": 3}, "no region 3"),
        ({"seed": True}, "seed is True. Give a value of type int"),
        ({"device": None}, "device is None. Give a value of type str"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"precision": "half"}, "no precision called 'half'. Use auto, float32 or bfloat16"),
        ({"parameters": None}, "The parameters are None. Give values by name"),
        ({"parameters": {"noise": np.float32}}, "noise is "),
        ({"parameters": Inpaint()}, "The parameters are Inpaint"),
    ],
)
def test_what_cannot_be_run_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(mdf.InputError, match=words):
        RunSettings(**{"task": "denoise", **changes}).checked()


def test_their_text_in_reports_and_messages_stays() -> None:
    """Older reports are compared with it, and a worker reads it."""
    settings = RunSettings("denoise", {"noise": 20.0}, seed=7, threads=2)
    assert json.dumps(settings.as_dict()) == AS_TEXT
    assert encode("run", **settings.as_dict()) == b'{"type": "run", ' + AS_TEXT[1:].encode() + b"\n"
    checked = settings.checked()
    assert checked.parameters == Denoise(noise=20.0) and checked.checked() == checked
    assert checked == settings_of_message(json.loads(AS_TEXT))
    assert mdf.RunSettings is RunSettings
