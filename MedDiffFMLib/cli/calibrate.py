"""``meddifffm calibrate WEIGHTS DATALIST``: store the residual on normal tissue, which the anomaly map needs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.atomic_files import check_output
from ..core.devices import DEVICE_HELP
from ..core.errors import InputError
from ..core.input_guard import InputGuard
from .arguments import add_command
from .console import Console

if TYPE_CHECKING:
    from ..datasets.datalist import Entry

SPLITS = ("training", "validation", "testing")


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "calibrate",
        run,
        "Calibrate the anomaly map of a model on normal tissue.",
        'Voxels above 0 in a case\'s "label" are abnormal and left out.',
    )
    parser.add_argument("weights", help="name of a model, or .safetensors file")
    parser.add_argument("datalist", type=Path, help="MONAI decathlon JSON")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NEW_WEIGHTS", help=".safetensors file")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="use these (default: all)")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def run(args: argparse.Namespace, console: Console) -> int:
    """Calibrate and write the same weights with the figures."""
    from ..datasets.datalist import read_datalist
    from ..models.catalogue import resolve
    from ..models.checkpoint import load_denoiser, load_model, save_model
    from ..training.pretrain.calibrate import calibrate

    check_output(args.output, overwrite=args.overwrite)
    if args.output.suffix != ".safetensors":
        raise InputError(f"'{args.output.name}' does not end in .safetensors.", "Choose another name.")
    cases = Cases(read_datalist(args.datalist, tuple(args.splits)), console)
    _, path, _ = resolve(args.weights)
    InputGuard([path, args.datalist]).refuse([args.output])
    model = load_model(args.weights, device=args.device)
    calibration = calibrate(model.engine, cases, report=console.note)
    console.cancel.check()
    state = load_denoiser(path).state_dict()
    digest = save_model(args.output, state, model.config, calibration)
    answer = {"status": "done", "output": str(args.output), "sha256": digest, "calibration": calibration}
    edges = ", ".join(calibration["levels"])
    console.answer(answer, f"{args.output}: calibrated on {len(cases)} cases, cubes of {edges} mm.\nSHA-256 {digest}")
    return 0


class Cases(Sequence):
    """CTs of a datalist with their abnormal voxels and region, read one at a time."""

    def __init__(self, entries: list[Entry], console: Console) -> None:
        self._entries, self._console = entries, console
        for entry in entries:  # a missing file is found now, not after an hour
            for path in (entry.image, entry.file("label")):
                if path is not None and not path.exists():
                    raise InputError(f"There is no file or folder '{path}'.", "Check the path.")

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: Any) -> Any:
        from ..imaging.io import read_volume
        from ..imaging.volume import check_ct, check_mask

        entry = self._entries[index]
        self._console.cancel.check()
        volume = read_volume(entry.image)
        for sentence in check_ct(volume):
            self._console.warning(f"{entry.name}: {sentence}")
        path = entry.file("label")
        label = None if path is None else read_volume(path, modality="mask")
        # An empty label map says that the whole case is normal.
        abnormal = None if label is None or not label.voxels.any() else check_mask(label, volume)
        return volume, abnormal, entry.region
