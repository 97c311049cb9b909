"""Names of BIDS derivatives: ``sub-01/ses-02/ct/sub-01_ses-02_desc-denoised_ct.nii.gz`` below a folder.

CT is no modality of the standard yet (BIDS extension proposal 24); folder and suffix are those of its draft. A report
is the sidecar of the main result. What the standard has no names for is in ``.bidsignore``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..core.atomic_files import atomic_path
from ..core.errors import InputError
from ..core.json_files import write_json
from ..imaging.image_files import stem_of
from ..tasks.output_kinds import OutputKind
from ..tasks.registry import TASKS
from .outputs import OutputPlan, plan_outputs

BIDS, PLAIN = "bids", "plain"
NAMES = (PLAIN, BIDS)
NAMES_HELP = "of the results: plain, or those of BIDS derivatives, for scans called as sub-01[_ses-02]_ct.nii.gz"
VERSION = "1.10.0"
_SCAN = re.compile(r"(sub-[0-9A-Za-z]+)(?:_(ses-[0-9A-Za-z]+))?((?:_[a-z]+-[0-9A-Za-z]+)*)(?:_[0-9A-Za-z]+)?")
_DESCRIBED = re.compile(r"_desc-[0-9A-Za-z]+")
_SUFFIXES = {OutputKind.MASK: "mask", OutputKind.LABELS: "dseg"}
_IGNORED = ("*.csv", "*.txt", "*.png", "*.pdf", "*.html", "batch_*.json", "ct")


@dataclass(frozen=True)
class BidsPlan(OutputPlan):
    """Names of the outputs of one scan; ``base`` holds its entities, such as ``sub-01_ses-02``.

    Attributes:
        task: whose main output the report belongs to.
    """

    task: str = ""

    @property
    def report(self) -> Path:
        return self.folder / f"{self.base}_desc-{_word(TASKS[self.task].outputs[0].name)}_ct.json"

    def file(self, task: str, name: str) -> Path:
        kind = TASKS[task].output(name).kind
        suffix = _SUFFIXES.get(kind, "ct")
        return self.folder / f"{self.base}_desc-{_word(name)}_{suffix}{kind.suffix or self.suffix}"


def planned(task: str, source: Path | None, folder: Path, names: str = PLAIN) -> OutputPlan:
    """Where the results of a case of a batch go.

    Raises:
        InputError: a scan without a subject in its name, for BIDS.
    """
    if names == PLAIN:
        return plan_outputs(task, source, folder)
    match = None if source is None else _SCAN.fullmatch(stem_of(source))
    if match is None:
        called = "" if source is None else stem_of(source)
        raise InputError(f"'{called}' is no name of a BIDS scan.", "Call the scans as in sub-01_ses-02_ct.nii.gz.")
    subject, session, entities = match.groups()
    place = folder.joinpath(*(part for part in (subject, session, "ct") if part))
    base = "_".join(part for part in (subject, session) if part) + _DESCRIBED.sub("", entities)
    return BidsPlan(place, base, ".nii.gz", task)


def describe_derivatives(folder: Path, task: str) -> None:
    """``dataset_description.json`` and ``.bidsignore`` of a folder of derivatives; what is there stays.

    Raises:
        OutputError: no permission or space.
    """
    generator = {"Name": "MedDiff-FM", "Version": __version__, "Description": f"meddifffm {task}; research use only"}
    description = {
        "Name": f"MedDiff-FM {task}",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [generator],
    }
    if not (folder / "dataset_description.json").exists():
        write_json(description, folder / "dataset_description.json")
    if not (folder / ".bidsignore").exists():
        with atomic_path(folder / ".bidsignore", overwrite=False) as temporary:
            temporary.write_text("\n".join(_IGNORED) + "\n", encoding="utf-8")


def _word(name: str) -> str:
    """An output's name as a label, which has letters and digits only: ``with_lesion`` -> ``withLesion``."""
    first, *others = [part for part in re.split(r"[^0-9A-Za-z]+", name) if part]
    return first + "".join(part[:1].upper() + part[1:] for part in others)
