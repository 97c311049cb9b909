"""Figures of prompts: how much of what was asked for is measured in the result, beside the same seed without a prompt.

``python -m Testing.experiments.prompt_figures [--seeds 3] [--spacing 3]`` prints a row for each fact that a prompt can
steer. The judge is ``describe``, whose rules no network was trained on.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import MedDiffFMLib as mdf
from MedDiffFMLib.multimodal.facts.measure import measure
from MedDiffFMLib.tasks.synthesize.wishes import met, understand

PROMPTS = (
    "chest CT with contrast agent, lungs of 3 l, 360 mm wide",
    "non-contrast chest CT, lungs of 5 l, 6 mm slices, noise of 30 HU",
    "abdomen with contrast agent, 45 % fat",
    "abdomen without contrast, 20 % fat, 320 mm wide, noise of 20 HU",
    "pelvis, 9 mm slices, 10 % bone",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--spacing", type=float, default=3.0)
    options = parser.parse_args()
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
    for name, rows in counts.items():
        with_prompt, bare_share = (sum(row[which] for row in rows) / len(rows) for which in (0, 1))
        print(f"{name:40} met {with_prompt:.2f}, without a prompt {bare_share:.2f}, n {len(rows)}")


if __name__ == "__main__":
    main()
