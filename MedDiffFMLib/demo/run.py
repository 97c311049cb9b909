"""The demo: a real CT, described, X-rayed, searched for anomalies, denoised, its nodule filled; a CT from an MR."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..core.devices import DEVICE_HELP
from ..core.errors import MedDiffFMError
from ..models.names import DEFAULT_MODEL

SAMPLE = "thorax_lidc0001.nrrd"
SAMPLE_MASK = "thorax_lidc0001_mask.nrrd"
SAMPLE_MR = "thigh_sts001_mrT1.nrrd"
MASK_GROWTH_MM = 2.0


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python3 run.py demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the results")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="catalogue name or .safetensors file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        run_demo(options.output, device=options.device, model_name=options.model, seed=options.seed)
    except MedDiffFMError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return 130
    return 0


def run_demo(folder: Path, *, device: str = "auto", model_name: str = DEFAULT_MODEL, seed: int = 0) -> dict[str, Any]:
    """Five tasks on the sample CT, one on the sample MR.

    Volumes, findings, sentences, X-rays, reports and ``demo.png`` are written into a folder.

    Returns:
        What the demo found: the nodule's rank among the findings, HU in the nodule before and after, noise, sentences.
    """
    from ..core.json_files import write_json
    from ..core.resources import resource_folder
    from ..imaging.io import read_volume, write_volume
    from ..models.checkpoint import load_model
    from ..runner.case import run_case
    from ..runner.case_files import CaseFiles
    from ..runner.outputs import OutputPlan
    from ..runner.report import NOTICE
    from ..runner.settings import RunSettings
    from ..tasks.inputs import REQUIRED
    from ..tasks.registry import TASKS
    from .figure import draw_demo

    samples = resource_folder() / "SampleData"
    volume = read_volume(samples / SAMPLE)
    nodule = read_volume(samples / SAMPLE_MASK, modality="mask")
    model = load_model(model_name, device=device)
    print(f"Real CT: {SAMPLE} (LIDC-IDRI-0001, CC BY 3.0), model {model.name} on {model.device}. {NOTICE}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    fill_mask = folder / "nodule_mask.nrrd"
    write_volume(nodule.with_voxels(grown(nodule, MASK_GROWTH_MM)), fill_mask, overwrite=True, mask=True)
    sentences = _describe_and_xray(folder, samples, device)
    results: dict[str, np.ndarray] = {}
    reports: dict[str, Any] = {}
    for name in ("anomaly", "denoise", "inpaint"):
        task = TASKS[name]
        settings = RunSettings(name, seed=seed, model=model_name, device=device)
        case = CaseFiles(samples / SAMPLE, fill_mask if task.inputs.mask is REQUIRED else None)
        plan = OutputPlan(folder, name, ".nrrd")
        reports[name] = run_case(settings, case, plan, lambda: model, overwrite=True, progress=_ProgressLine(name))
        for output in task.volumes():
            results[output.name] = read_volume(plan.file(name, output.name)).voxels
    summary = {**_summary(volume, nodule.voxels > 0, results, reports), "sentences": sentences}
    draw_demo(folder / "demo.png", volume, nodule.voxels > 0, results, summary)
    write_json(summary, folder / "demo.json", overwrite=True)
    _tell(summary, folder)
    return summary


def _describe_and_xray(folder: Path, samples: Path, device: str) -> list[str]:
    """The tasks that need no model; prints the sentences, each of which has its evidence in ``describe.json``.

    Args:
        samples: folder of the sample CT and the readers' mask of its nodule.
    """
    from ..models.no_model import NO_MODEL
    from ..runner.case import CaseFiles, run_case
    from ..runner.load import load
    from ..runner.outputs import OutputPlan
    from ..runner.settings import RunSettings

    sentences: list[str] = []
    for name, case, parameters in (
        ("describe", CaseFiles(samples / SAMPLE, samples / SAMPLE_MASK), {}),
        ("radiograph", CaseFiles(samples / SAMPLE), {"views": "ap,lat"}),
        ("translate", CaseFiles(samples / SAMPLE_MR), {"to": "ct"}),
    ):
        settings = RunSettings(name, parameters, model=NO_MODEL, device=device).checked()
        plan = OutputPlan(folder, name, ".nrrd")
        report = run_case(settings, case, plan, partial(load, settings), overwrite=True)
        sentences += [fact["sentence"] for fact in report["facts"].get("facts", [])]
    print("\n".join(["What can be measured in it:", *(f"  {sentence}" for sentence in sentences)]))
    print(f"X-rays of it: {folder / 'radiograph.png'} (AP), {folder / 'radiograph_lat.png'} (lateral).")
    print(
        f"CT made from the MR of a thigh ({SAMPLE_MR}): {folder / 'translate.nrrd'}, likely error beside it.",
        flush=True,
    )
    return sentences


def grown(nodule: Any, margin: float) -> np.ndarray:
    """The mask grown by ``margin`` mm, uint8: readers outline a nodule tightly, and its rim must not stay behind."""
    from scipy.ndimage import distance_transform_edt

    i, j, k = nodule.spacing
    return (distance_transform_edt(nodule.voxels == 0, sampling=(k, j, i)) <= margin).astype(np.uint8)


def _summary(
    volume: Any, nodule: np.ndarray, results: dict[str, np.ndarray], reports: dict[str, Any]
) -> dict[str, Any]:
    from ..tasks.anomaly.findings import list_findings

    threshold = reports["anomaly"]["settings"]["parameters"]["threshold"]
    least = reports["anomaly"]["settings"]["parameters"]["minimum_volume"]
    most = reports["anomaly"]["settings"]["parameters"]["at_most"]
    table = list_findings(results["anomaly"], volume, threshold, least, at_most=most)
    from scipy import ndimage

    labels, _ = ndimage.label(results["anomaly"] > threshold, structure=np.ones((3, 3, 3)))
    hit = set(np.unique(labels[nodule])) - {0}
    peaks = {n: float(results["anomaly"][labels == n].max()) for n in hit}
    rank = next((row["number"] for row in table if any(abs(row["peak_z"] - p) < 0.01 for p in peaks.values())), None)
    return {
        "nodule_found": bool(hit),
        "nodule_rank": rank,
        "findings": len(table),
        "nodule_covered": round(float((results["anomaly"][nodule] > threshold).mean()), 3),
        "nodule_peak_z": round(float(results["anomaly"][nodule].max()), 2),
        "nodule_mean_hu": round(float(volume.voxels[nodule].mean()), 1),
        "filled_mean_hu": round(float(results["inpainted"][nodule].mean()), 1),
        "noise_hu": reports["denoise"]["facts"]["noise_hu"],
        "threshold_z": threshold,
        "seconds": {name: report["seconds"] for name, report in reports.items()},
        "peak_memory_mb": round(max(report["peak_memory_bytes"]["main"] or 0 for report in reports.values()) / 1e6),
        "model": reports["anomaly"]["model"],
    }


def _tell(summary: dict[str, Any], folder: Path) -> None:
    where = f"finding {summary['nodule_rank']} of {summary['findings']}" if summary["nodule_rank"] else "not listed"
    verdict = f"found ({where}, peak z {summary['nodule_peak_z']})" if summary["nodule_found"] else "not found"
    print(f"Nodule of 24.6 mm: {verdict}.")
    print(f"Nodule: {summary['nodule_mean_hu']:g} HU before, {summary['filled_mean_hu']:g} HU after filling.")
    print(f"Noise of the CT: {summary['noise_hu']:g} HU. Peak memory {summary['peak_memory_mb']} MB.")
    print(f"Look at {folder / 'demo.png'}; volumes and reports lie beside it.")


class _ProgressLine:
    """One line a task on the terminal, every tenth of the way elsewhere."""

    def __init__(self, name: str) -> None:
        self.name, self._last = name, -1

    def __call__(self, event: Any) -> None:
        tenth = int(event.fraction * 10)
        left = "" if event.seconds_left is None else f", {event.seconds_left:.0f} s left"
        if sys.stdout.isatty():
            end = "\n" if event.fraction >= 1 else ""
            print(f"\r{self.name}: {event.fraction:4.0%} {event.stage}{left}      ", end=end, flush=True)
        elif tenth != self._last:
            self._last = tenth
            print(f"{self.name}: {event.fraction:4.0%} {event.stage}{left}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
