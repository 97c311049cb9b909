"""Figures of prompts: how much of what was asked for is measured in the result, beside the same seed without a prompt.

``python -m Testing.experiments.prompt_figures [--seeds 3] [--spacing 3]`` prints a row for each fact that a prompt can
steer. The judge is ``describe``, whose rules no network was trained on. ``--measures`` asks for six widths of the body
and six volumes of the lungs instead, a seed each; ``--expected`` measures the image that is expected of the anatomy,
without a network.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

import MedDiffFMLib as mdf
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.multimodal.facts.measure import measure
from MedDiffFMLib.tasks.synthesize.body_layout import bent_layout
from MedDiffFMLib.tasks.synthesize.wishes import Wishes, met, understand

PROMPTS = (
    "chest CT with contrast agent, lungs of 3 l, 360 mm wide",
    "non-contrast chest CT, lungs of 5 l, 6 mm slices, noise of 30 HU",
    "abdomen with contrast agent, 45 % fat",
    "abdomen without contrast, 20 % fat, 320 mm wide, noise of 20 HU",
    "pelvis, 9 mm slices, 10 % bone",
)
MEASURES = (
    "chest CT, 300 mm wide",
    "chest CT with contrast agent, 340 mm wide",
    "chest CT with contrast agent, 400 mm wide",
    "abdomen with contrast agent, 330 mm wide",
    "abdomen without contrast, 420 mm wide",
    "pelvis, 360 mm wide",
    "chest CT, lungs of 2.5 l",
    "chest CT with contrast agent, lungs of 3 l",
    "chest CT, lungs of 4.5 l",
    "chest CT with contrast agent, lungs of 5 l",
    "chest CT, lungs of 6 l",
    "chest CT with contrast agent, lungs of 4 l, 360 mm wide",
)
"""A width, or lungs; the last asks for both."""


def expected_ct(prompt: str | None, spacing: float, seed: int) -> Volume:
    """The image that is expected of a prompt's anatomy, before any network."""
    wishes = Wishes() if prompt is None else understand(prompt)
    layout = bent_layout(None, spacing, wishes.region or "chest", seed, wishes.contrast, wishes.measures)
    assert layout is not None and layout.anatomy is not None
    return Volume(np.rint(layout.anatomy.expected(layout.grid)).astype(np.int16), layout.grid.ijk_to_ras)


def judge_measures(spacing: float, expected: bool, only: Sequence[int] | None) -> dict[str, list[tuple[bool, bool]]]:
    """Whether widths and lungs are met, with the prompt and without, by fact."""
    counts: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for seed, prompt in enumerate(MEASURES):
        if only is not None and seed not in only:
            continue
        facts = [
            measure(expected_ct(said, spacing, seed) if expected else
                    mdf.synthesize(prompt=said, spacing=spacing, seed=seed).volumes["synthetic"]).facts
            for said in (prompt, None)
        ]  # fmt: skip
        rows, bare = (met(understand(prompt), found) for found in facts)
        for row, other in zip(rows, bare, strict=True):
            counts[f"{row['fact']}: {row['value']}"].append((row["met"] == "yes", other["met"] == "yes"))
            print(prompt, row["fact"], row["asked"], row["measured"], other["measured"], flush=True)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--spacing", type=float, default=3.0)
    parser.add_argument("--measures", action="store_true", help="six widths and six volumes of lungs")
    parser.add_argument("--expected", action="store_true", help="without a network, for --measures")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of prompts, from 0 on, for --measures")
    options = parser.parse_args()
    if options.measures:
        show(judge_measures(options.spacing, options.expected, options.only))
        return
    counts: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for seed in range(options.seeds):
        usual = mdf.synthesize(spacing=options.spacing, seed=seed).volumes["synthetic"]
        facts = measure(usual).facts
        for prompt in PROMPTS:
            asked = mdf.synthesize(prompt=prompt, spacing=options.spacing, seed=seed).tables["asked"]
            without = met(understand(prompt), facts)
            for row, bare in zip(asked, without, strict=True):
                name = f"{row['fact']}: {row['value']}"
                counts[name].append((row["met"] == "yes", bare["met"] == "yes"))
                print(seed, prompt[:40], name, row["asked"], row["measured"], bare["measured"], flush=True)
    show(counts)


def show(counts: dict[str, list[tuple[bool, bool]]]) -> None:
    """Shares that were met."""
    for name, rows in counts.items():
        with_prompt, bare_share = (sum(row[which] for row in rows) / len(rows) for which in (0, 1))
        print(f"{name:40} met {with_prompt:.2f}, without a prompt {bare_share:.2f}, n {len(rows)}")


if __name__ == "__main__":
    main()
