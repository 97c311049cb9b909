"""Time and memory of one network call: the prior's network against the plain 3-D diffusion U-Net.

    python Testing/experiments/network.py [--threads 2] [--size 64] [--repeats 7] [--output FILE.json]

Both have the same channels. The prior works behind the Haar stem in the precision it ships with; the other one is
MONAI's DiffusionModelUNet at full resolution in float32, as it comes. They take turns in one run, so that whatever
else the machine does meets both. Each is measured for memory in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from MedDiffFMLib.conditioning.condition import Condition
from MedDiffFMLib.networks.unet import NetworkConfig, PriorUNet
from MedDiffFMLib.runner.report import peak_main_memory

NAMES = ("prior", "plain")
TITLES = ("prior: Haar stem, bfloat16, channels last", "MONAI DiffusionModelUNet, full resolution, float32")


def build(name: str, channels: tuple[int, ...], size: int):
    """A function without arguments that does one call on one patch."""
    torch.manual_seed(0)
    x, when, noise = torch.randn(1, 1, size, size, size), torch.tensor([400.0]), torch.tensor([0.06])
    config = NetworkConfig(channels=channels, attention=(False,) * len(channels))
    if name == "plain":
        from monai.networks.nets import DiffusionModelUNet

        plain = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=1,
            channels=channels,
            num_res_blocks=config.blocks,
            attention_levels=config.attention,
            norm_num_groups=config.groups,
            num_head_channels=config.groups * 4,
        ).eval()
        return lambda: plain(x, when)
    network: torch.nn.Module = PriorUNet(config).eval()
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    condition = Condition(spacing=(1.5, 1.5, 1.5)).encode((size, size, size))

    def call():
        with torch.autocast("cpu", torch.bfloat16):
            return network(x, noise, when, condition)

    return call


def memory(name: str, arguments: argparse.Namespace) -> int:
    """Peak main memory of a fresh process that builds the network and calls it once; "program" does neither."""
    command = [sys.executable, __file__, "--only", name, "--threads", str(arguments.threads),
               "--size", str(arguments.size), "--channels", *map(str, arguments.channels)]  # fmt: skip
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--channels", type=int, nargs="+", default=list(NetworkConfig().channels))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", choices=(*NAMES, "program"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    channels = tuple(arguments.channels)
    with torch.inference_mode():
        if arguments.only:
            import monai.networks.nets  # noqa: F401  part of the program, whoever asks

            if arguments.only in NAMES:
                build(arguments.only, channels, arguments.size)()
            print(peak_main_memory())
            return
        calls = {name: build(name, channels, arguments.size) for name in NAMES}
        seconds: dict[str, list[float]] = {name: [] for name in NAMES}
        for repeat in range(arguments.repeats + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if repeat:  # the first call of each chooses its kernels
                    seconds[name].append(time.perf_counter() - start)
    result: dict[str, Any] = {
        "patch": [arguments.size] * 3,
        "channels": list(channels),
        "threads": arguments.threads,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "median_seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "peak_bytes": {name: memory(name, arguments) for name in (*NAMES, "program")},
    }
    print("| network | median of one call, s | peak memory of the process, MB |\n|---|---:|---:|")
    for name, title in zip(NAMES, TITLES, strict=True):
        print(f"| {title} | {result['median_seconds'][name]:.3f} | {result['peak_bytes'][name] / 1e6:.0f} |")
    print(f"| the program without a network | | {result['peak_bytes']['program'] / 1e6:.0f} |")
    print(f"\n{result['median_seconds']['plain'] / result['median_seconds']['prior']:.1f} times faster.")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
