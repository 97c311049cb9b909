"""Stages of many modalities: sizes, the gate between them, and collections as they are downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.datasets.datalist import read_datalist, refuse_shared_patients
from MedDiffFMLib.training.multimodal.gate import pass_gate, worsened
from MedDiffFMLib.training.multimodal.presets import PRESETS

BEFORE = {"text_ct_r5": 0.20, "ct_mr_r1": 0.90, "rank_ct": 40.0}


def test_a_stage_that_worsens_an_earlier_one_is_set_aside(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"later")
    better = {"text_ct_r5": 0.31, "ct_mr_r1": 0.885, "rank_ct": 3.0}
    assert worsened(BEFORE, better) == ["rank_ct"]
    assert pass_gate(weights, BEFORE, better, keep=False) == [] and weights.exists()  # the rank is no aim
    worse = {"text_ct_r5": 0.31, "ct_mr_r1": 0.87}
    assert pass_gate(weights, BEFORE, worse, keep=True) == ["ct_mr_r1"] and weights.exists()
    with pytest.raises(ModelError, match="ct_mr_r1 from 0.900 to 0.870"):
        pass_gate(weights, BEFORE, worse, keep=False)
    assert not weights.exists() and (tmp_path / "worse.safetensors").read_bytes() == b"later"
    assert json.loads((tmp_path / "gate.json").read_text())["worse"] == ["ct_mr_r1"]


@pytest.mark.slow
def test_presets_are_settings_that_can_be_trained() -> None:
    from MedDiffFMLib.cli.pretrain_translate import _preset
    from MedDiffFMLib.training.pretrain.translation import FlowTraining, TranslationConfig

    sizes = {}
    for name, stages in PRESETS.items():
        config = _preset(TranslationConfig(), stages["translate"])
        for flow in (config.ct, config.mr):
            flow.check()
            assert all(edge % flow.divisor == 0 for edge in config.window)
        module = FlowTraining({"ct": config.ct, "mr-t1": config.mr})
        sizes[name] = sum(parameter.numel() for parameter in module.parameters())
    assert sizes["lab"] > 2 * sizes["starter"]
    assert _preset(TranslationConfig(), PRESETS["starter"]["translate"]) == TranslationConfig()


def test_collections_are_listed_as_they_are_downloaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(40):
        folder = tmp_path / "Task1" / "TH" / f"1THA{number:03}"
        folder.mkdir(parents=True)
        for name in ("ct", "mr", "mask"):
            (folder / f"{name}.mha").touch()
    (tmp_path / "Task2" / "2THA001").mkdir(parents=True)
    (tmp_path / "Task2" / "2THA001" / "ct.mha").touch()  # beside a cone-beam CT
    pairs = tmp_path / "pairs.json"
    assert main(["multimodal", "list", str(tmp_path), "--collection", "synthrad2025", "-o", str(pairs)]) == 0
    assert "CC BY-NC 4.0" in capsys.readouterr().out
    entries = read_datalist(pairs)
    refuse_shared_patients(entries)
    assert len(entries) == 40 and {entry.files["mr"].name for entry in entries} == {"mr.mha"}
    assert 1 <= sum(entry.split == "validation" for entry in entries) <= 10

    for name in ("train_1_a_1", "train_1_a_2", "train_1_b_1", "valid_7_a_2"):
        place = tmp_path / "dataset" / name
        place.mkdir(parents=True)
        (place / f"{name}.nii.gz").touch()
    scans = tmp_path / "scans.json"
    assert main(["multimodal", "list", str(tmp_path / "dataset"), "--collection", "ct-rate", "-o", str(scans)]) == 0
    rows = {entry.name: (entry.split, entry.patient, entry.image.name) for entry in read_datalist(scans)}
    assert rows == {
        "train_1_a": ("training", "train_1", "train_1_a_1.nii.gz"),
        "train_1_b": ("training", "train_1", "train_1_b_1.nii.gz"),
        "valid_7_a": ("validation", "valid_7", "valid_7_a_2.nii.gz"),
    }
    assert main(["multimodal", "list", str(pairs.parent / "Task2"), "--collection", "ct-rate", "-o", str(scans)]) == 2
