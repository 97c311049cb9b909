"""Every row of docs/reference/bad-input.md is what users really read."""

from __future__ import annotations

from pathlib import Path

import pytest

from Testing.unit.bad_input import CASES, PAGE, BadInput, page


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.title)
def test_message(row: BadInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = row.message.replace("{folder}", str(tmp_path))
    with monkeypatch.context() as patch:
        if row.error is None:
            assert row.run(tmp_path, patch) == [message]
            return
        with pytest.raises(row.error) as caught:
            row.run(tmp_path, patch)
    assert type(caught.value) is row.error and str(caught.value) == message
    assert caught.value.cause and caught.value.remedy
    assert not [file.name for file in tmp_path.iterdir() if ".part." in file.name], "a temporary file was left behind"


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m Testing.unit.bad_input"
