"""Figures of docs/results/translate.md: errors on pairs, recognition of strange images, registration.

    python -m Testing.experiments.translate_figures pairs PAIRS.json --weights FILE [--given]
    python -m Testing.experiments.translate_figures strange --weights FILE --own MR ... --strange MR ... --ct CT ...
    python -m Testing.experiments.translate_figures register PAIRS.json --weights FILE

PAIRS.json is a datalist of `meddifffm pretrain-translate`; all of its rows are judged. Images of `--ct` are given as
MRs, with 1024 added. Registration moves the CT by known shifts of 15 mm at most and looks for them in the MR, by
mutual information on the CT as it is, and on the MR made from it. The right place is where the pairs' own alignment
put them, which is mutual information's, too: it flatters the CT as it is.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from MedDiffFMLib.datasets.datalist import read_datalist
from MedDiffFMLib.imaging.grid import Grid
from MedDiffFMLib.imaging.intensity import to_network
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.multimodal.familiarity import strangeness
from MedDiffFMLib.multimodal.flow_file import Flows, load_flows
from MedDiffFMLib.multimodal.mutual_information import normalized_mutual_information
from MedDiffFMLib.multimodal.names import CT, MR_T1
from MedDiffFMLib.multimodal.pairs import SPACING_MM, pair_of
from MedDiffFMLib.multimodal.prepared import prepare_mr
from MedDiffFMLib.multimodal.rigid_registration import _Search
from MedDiffFMLib.multimodal.translation import translate_image
from MedDiffFMLib.training.pretrain.translation_validation import BONE_HU, NINETY, dice, judge
from MedDiffFMLib.training.pretrain.translation_windows import RealPair

REGISTER_SHIFTS, LARGEST_MM, FAILED_MM = 3, 15.0, 5.0


def pairs(args: argparse.Namespace, flows: Flows) -> None:
    """Errors of both directions, each pair aligned; with ``--given`` also where it was given."""
    for entry in read_datalist(args.datalist):
        ct, mr = read_volume(entry.image), read_volume(entry.files["mr"], "MR")
        for refine in (True, False) if args.given else (True,):
            pair = pair_of(ct, mr, entry.name, entry.patient, refine)
            found = judge(flows.flows, RealPair.of(pair).guessed(flows.guess))
            made, truth, signal = found.result(CT, flows.strength[CT]), found.truth[CT], found.truth[MR_T1]
            error = np.abs(made - truth)
            nmi = [normalized_mutual_information(image, signal) for image in (made, truth)]
            row = {
                "case": entry.name, "aligned": refine, "moved_mm": pair.shift_mm, "turned": pair.angle_degrees,
                "mae": error.mean(), "guess": found.error(CT, 0).mean(), "lookup": np.abs(found.lookup - truth).mean(),
                "bone_dice": dice(made > BONE_HU, truth > BONE_HU),
                "lookup_dice": dice(found.lookup > BONE_HU, truth > BONE_HU),
                "bone_share": np.mean(truth > BONE_HU), "voxels": int(len(truth)), "nmi_over_true": nmi[0] / nmi[1],
                "covered": np.mean(error <= NINETY * flows.spread[CT] * found.spread[CT]),
                "spearman": spearmanr(error[::7], found.spread[CT][::7]).statistic,
                "mr_mae": found.error(MR_T1, flows.strength[MR_T1]).mean(), "mr_lookup": found.error(MR_T1, 0).mean(),
            }  # fmt: skip
            _tell({k: round(float(v), 4) if isinstance(v, (float, np.floating)) else v for k, v in row.items()})


def _tell(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def strange(args: argparse.Namespace, flows: Flows) -> None:
    """Median strangeness of each image in its body, and how well it tells the two groups apart."""
    scores: dict[str, list[float]] = {}
    for kind in ("own", "strange", "ct"):
        for path in getattr(args, kind):
            volume = read_volume(path, "MR")
            if kind == "ct":
                volume = volume.with_voxels(np.clip(volume.voxels + 1024, 0, None))
            source = prepare_mr(volume)
            far = flows.familiarity.distance(source.image, source.body, SPACING_MM)[source.body]
            scores.setdefault(kind, []).append(strangeness(far, far >= 0, source.fat_from_peak))
            share = round(float(np.mean(far > 1)), 3)
            _tell(
                {
                    "file": Path(path).name,
                    "kind": kind,
                    "strangeness": round(scores[kind][-1], 3),
                    "median": round(float(np.median(far)), 3),
                    "outside": share,
                }
            )
    own = np.array(scores["own"])
    for kind in ("strange", "ct"):
        other = np.array(scores.get(kind, []))
        if other.size:
            auroc = np.mean((other[:, None] > own) + 0.5 * (other[:, None] == own))
            _tell({"auroc": round(float(auroc), 3), "kind": kind, "n": [len(own), len(other)]})


def register(args: argparse.Namespace, flows: Flows) -> None:
    """Known shifts that are looked for."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    errors: dict[str, list[float]] = {}
    for number, entry in enumerate(read_datalist(args.datalist)):
        mr = read_volume(entry.files["mr"], "MR")
        source = prepare_mr(mr)
        pair = pair_of(read_volume(entry.image), mr, entry.name, entry.patient)
        images = _ct_and_made(pair, source.grid, flows)
        signal = Volume(np.where(source.seen, source.image, -1).astype(np.float32), source.grid.ijk_to_ras, "MR")
        rng = np.random.default_rng(number)
        for _ in range(REGISTER_SHIFTS):
            direction = rng.normal(size=3)
            shift = direction / np.linalg.norm(direction) * LARGEST_MM * rng.uniform(0.3, 1)
            row: dict[str, Any] = {"case": entry.name, "shift_mm": round(float(np.linalg.norm(shift)), 1)}
            for kind, image in images.items():
                matrix = image.ijk_to_ras.copy()
                matrix[:3, 3] += shift
                moved = replace(image, ijk_to_ras=matrix)
                transform = sitk.TranslationTransform(3)
                _Search(signal, moved, source.seen, pair.body & pair.seen, 1).run(transform)
                found = np.array(transform.GetOffset()) * (-1, -1, 1)
                row[kind] = round(float(np.linalg.norm(found - shift)), 2)
                errors.setdefault(kind, []).append(row[kind])
            _tell(row)
    for kind, values in errors.items():
        failed = float(np.mean(np.array(values) > FAILED_MM))
        middle, mean = round(float(np.median(values)), 2), round(float(np.mean(values)), 2)
        _tell({"through": kind, "n": len(values), "median_mm": middle, "mean_mm": mean, "failed": round(failed, 3)})


def _ct_and_made(pair: Any, grid: Grid, flows: Flows) -> dict[str, Volume]:
    """The CT, and the MRs that lookup and flow make from it, on the working grid."""
    parts = [torch.from_numpy(np.float32(a)) for a in (to_network(pair.hounsfield), pair.seen, pair.body)]
    made = translate_image(flows.flows[MR_T1], *parts, strength=flows.strength[MR_T1])
    arrays = {"ct": pair.hounsfield, "lookup": made.guess.numpy(), "made": made.image.numpy()}
    return {name: Volume(array.astype(np.float32), grid.ijk_to_ras) for name, array in arrays.items()}


def main() -> None:
    """See the top."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for run in (pairs, strange, register):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.add_argument("--weights", type=Path, required=True)
        command.set_defaults(run=run)
        if run is strange:
            for kind in ("own", "strange", "ct"):
                command.add_argument(f"--{kind}", nargs="*", default=[])
        else:
            command.add_argument("datalist")
        if run is pairs:
            command.add_argument("--given", action="store_true", help="also where the images were given, not aligned")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run(args, load_flows(args.weights))


if __name__ == "__main__":
    main()
