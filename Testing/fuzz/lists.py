"""Attacks on what names files: datalists, dataset folders, prepared cases, reports, lists of a batch."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from MedDiffFMLib.datasets.check import Needs, check_dataset, read_entries
from MedDiffFMLib.datasets.datalist import folder_name, read_datalist, refuse_shared_patients
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.runner.case_search import find_cases
from MedDiffFMLib.runner.report import FORMAT as REPORT_FORMAT
from MedDiffFMLib.runner.report import read_report

from .mutations import changed_bytes, changed_json
from .target import Files, Target
from .volumes import small_ct

NEEDS = Needs("lesion", True, 16)


class Datalist(Target):
    """Decathlon JSON; names must stay inside of the folders that are made from them."""

    name, weight = "datalist", 3
    content = {
        "training": [
            {"image": "a.nrrd", "label": "a_mask.nrrd", "anatomy": "a_organs.nrrd", "patient": "p1", "region": "chest"},
            "b.nii.gz",
            {"image": "c/ct.nrrd", "name": "c", "patient": "p3"},
            {"image": "d/ct.nrrd"},
        ],
        "validation": [{"image": "e.nrrd", "label": "e_mask.nrrd", "patient": "p5"}],
    }

    def make(self, rng: random.Random) -> Files:
        return {"datalist.json": changed_json(self.content, rng)}

    def read(self, folder: Path) -> None:
        entries = read_datalist(folder / "datalist.json")
        for entry in entries:
            assert entry.name == folder_name(entry.name) and Path(entry.name).name == entry.name, "a name leads away"
            assert len(entry.name.encode()) < 200, "no file system takes that name"
        refuse_shared_patients(entries)
        check_dataset(folder / "datalist.json", NEEDS)


class DatasetFolder(Target):
    """``dataset.json`` and ``case.json`` of a dataset folder."""

    name, weight = "dataset", 2

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from MedDiffFMLib.datasets.dataset_folder import Dataset

        if not (folder / "ours").exists():
            dataset = Dataset.create(folder / "ours")
            ct = small_ct()
            for name in ("c1", "c2"):
                dataset.add(name, ct, (ct.voxels > 0).astype(np.uint8))
            dataset.set_validation(["c2"])
        ours = folder / "ours"
        self.valid = {p.relative_to(ours).as_posix(): p.read_bytes() for p in ours.rglob("*") if p.is_file()}

    def make(self, rng: random.Random) -> Files:
        name = rng.choice(("dataset.json", "cases/c1/case.json", "cases/c1/case.json"))
        return {**self.valid, name: changed_json(json.loads(self.valid[name]), rng)}

    def read(self, folder: Path) -> None:
        from MedDiffFMLib.datasets.dataset_folder import Dataset

        dataset = Dataset(folder)
        _ = dataset.title
        cases, _ = dataset.scan()
        for case in cases:
            for path in case.files.values():
                assert folder.resolve() in path.resolve().parents, "a path leads out of the dataset"
        read_entries(folder, NEEDS)
        dataset.split(0.5)


class Prepared(Target):
    """``cases.json``, ``case.json`` and arrays of prepared cases."""

    name, weight = "prepared", 2

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from MedDiffFMLib.datasets.prepare import prepare

        for name in ("a", "b"):
            write_volume(small_ct(), folder / f"{name}.nrrd", overwrite=True)
        rows = {"training": [{"image": "a.nrrd", "patient": "p1"}], "validation": []}
        (folder / "datalist.json").write_text(json.dumps(rows))
        prepare(folder / "datalist.json", folder / "cache")
        self.valid = {
            path.relative_to(folder / "cache").as_posix(): path.read_bytes()
            for path in (folder / "cache").rglob("*")
            if path.is_file()
        }

    def make(self, rng: random.Random) -> Files:
        name = rng.choice(sorted(self.valid))
        content = self.valid[name]
        changed = changed_json(json.loads(content), rng) if name.endswith(".json") else changed_bytes(content, rng)
        return {**self.valid, name: changed}

    def read(self, folder: Path) -> None:
        from MedDiffFMLib.datasets.prepared_cases import open_cases

        for case in open_cases(folder, "training"):
            np.asarray(case.levels[0].voxels[0])


class Report(Target):
    """The report beside a result, as ``repeat`` and a resumed batch read it."""

    name, weight = "report", 1
    content: dict[str, Any] = {
        "format": REPORT_FORMAT,
        "settings": {"task": "denoise", "parameters": {"noise": 20.0, "steps": 1}, "seed": 0, "region": None,
                     "model": "starter-ct", "device": "cpu", "precision": "float32", "threads": 1},
        "inputs": {"volume": {"path": "nowhere.nrrd", "sha256": "0" * 64}},
        "outputs": {"denoised": {"file": "x_denoise.nrrd", "sha256": "1" * 64, "bytes": 10}},
        "model": {"name": "starter-ct", "sha256": "2" * 64}, "versions": {"torch": "2"}, "device": "cpu",
        "precision": "float32", "threads": 1, "memory_rung": {"batch": 2, "window": 64},
    }  # fmt: skip

    def __init__(self, folder: Path) -> None:
        """A run that can be repeated, so that an attack gets behind the check of its input's hash."""
        super().__init__(folder)
        from MedDiffFMLib.models.names import NO_MODEL
        from MedDiffFMLib.runner.case import run_case
        from MedDiffFMLib.runner.case_files import CaseFiles
        from MedDiffFMLib.runner.load import load
        from MedDiffFMLib.runner.outputs import plan_outputs
        from MedDiffFMLib.runner.settings import RunSettings

        scan = folder / "x.nrrd"
        write_volume(small_ct(), scan, overwrite=True)
        settings = RunSettings("radiograph", {"pixels": 32}, model=NO_MODEL, device="cpu", threads=1).checked()
        run_case(
            settings, CaseFiles(scan), plan_outputs("radiograph", scan, folder), lambda: load(settings), overwrite=True
        )
        self.valid = {path.name: path.read_bytes() for path in folder.iterdir()}

    def make(self, rng: random.Random) -> Files:
        if rng.random() < 0.5:
            return {"x_denoise.json": changed_json(self.content, rng), "x.nrrd": b"NRRD0004\n"}
        report = "x_radiograph.json"
        return {**self.valid, report: changed_json(json.loads(self.valid[report]), rng)}

    def read(self, folder: Path) -> None:
        if (folder / "x_radiograph.json").exists():
            self._repeat(folder / "x_radiograph.json")
        else:
            self._ask(folder)

    def _repeat(self, path: Path) -> None:
        from MedDiffFMLib.runner.reproduce import repeat

        before = {file.name for file in path.parent.iterdir()}
        assert isinstance(repeat(path)["identical"], bool)
        assert {file.name for file in path.parent.iterdir()} == before, "repeating wrote beside the report"

    def _ask(self, folder: Path) -> None:
        from MedDiffFMLib.runner.batch import is_done
        from MedDiffFMLib.runner.case_files import CaseFiles
        from MedDiffFMLib.runner.outputs import plan_outputs
        from MedDiffFMLib.runner.reproduce import repeat
        from MedDiffFMLib.runner.settings import RunSettings
        from MedDiffFMLib.tasks.denoise.spec import Denoise

        path = folder / "x_denoise.json"
        case = CaseFiles(folder / "x.nrrd")
        model: Any = type("Model", (), {"sha256": "2" * 64})
        settings = RunSettings("denoise", Denoise(noise=20.0, steps=1))
        assert not is_done(settings, case, plan_outputs("denoise", case.input, folder), model)
        read_report(path)
        repeat(path)


class CaseList(Target):
    """The .csv and .txt lists of ``--batch``."""

    name, weight = "case-list", 1

    def make(self, rng: random.Random) -> Files:
        table = b"input,mask,anatomy\na.nrrd,m/a.nrrd,\nb.nrrd,,o/b.nrrd\nc dir/,,\n"
        if rng.random() < 0.5:
            return {"in.csv": changed_bytes(table, rng)}
        return {"in.txt": changed_bytes(b"a.nrrd\nsub/b.nii.gz\n\n/c.nrrd\n", rng, [table])}

    def read(self, folder: Path) -> None:
        (path,) = folder.iterdir()
        for case in find_cases([path], "anomaly"):
            assert case.name
