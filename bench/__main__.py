"""`python -m bench [name …]`: run the named benchmarks, or all of them, and write
bench/results/NAME.json.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from bench.report import RESULTS, write

BENCHMARKS = {
    "step_overhead": "µs a step on a network that does nothing, against diffusers' schedulers",
    "nfe": "network calls to a given error on GMM5, against diffusers' schedulers",
    "ema": "ms an update of averaged weights, against diffusers' EMAModel",
    "loss_overhead": "ms of the losses of Part III, against their bare network calls",
    "training": "seconds and ratios of saving, resuming and a second process",
    "parallel": "rounds, evaluations and seconds of sampling in parallel over time",
    "imports": "seconds of a cold import",
    "stable_consistency": "students of consistency training, by how many samples a target has",
    "adversarial": "PCM's students of captioned shapes, by the weight of the adversarial term",
    "reward_finetuning": "how far reward fine-tuning stays below the exact optimum, by samples",
    "students": "every student of Part III at one budget (has options: students --help)",
    "chapters": "seconds to execute each chapter",
    "gpu_loop": "seconds of a sampling loop on an SD1.5-size U-Net; needs a GPU",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 0 when all of it was measured or politely skipped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["students"]:  # the one with options, and its own way of keeping cells
        return importlib.import_module("bench.students").main(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:14s} {what}" for name, what in BENCHMARKS.items()),
    )
    parser.add_argument("name", nargs="*", help="benchmarks to run (default: all)")
    names = parser.parse_args(arguments).name or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(
            f"no benchmark is called {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}"
        )
    for name in names:
        measure(name)
    return 0


def measure(name: str) -> None:
    """Run one benchmark, print its table and keep its report."""
    print(f"{name}: {BENCHMARKS[name]}", flush=True)
    report = importlib.import_module(f"bench.{name}").run()
    if report is not None:
        print(report.table())
        print(f"{name}: wrote bench/results/{write(report, name, RESULTS).name}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
