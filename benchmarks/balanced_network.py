"""A balanced random network after Brunel (2000): seconds, memory and ns per arrival of a solve and of its gradient.

    python benchmarks/balanced_network.py [--write]
    python benchmarks/balanced_network.py --sizes 1000,2000 --ms 100

The network of examples/balanced_network.py, through the public call, one sample: each size, of which every neuron hears a
tenth, in a process of its own, once beforehand on a small network so that nothing is compiled. The exponent is of wall
seconds in arrivals, over all sizes.
"""

import argparse
import importlib.util
import math
import multiprocessing
import resource
import statistics
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from adjsnn.numerics.machine import processor

FOLDER = Path(__file__).parent
PAGE = FOLDER / "results" / "balanced_network.md"


class Figures(NamedTuple):
    """What a network took.

    Attributes:
        arrivals: of spikes at neurons.
        rate: of its neurons in the second half, Hz.
        seconds: wall seconds of the solve and of the gradient, medians.
        peak: the most memory of the process, bytes.
    """

    arrivals: float
    rate: float
    seconds: tuple[float, float]
    peak: int


def example():
    """examples/balanced_network.py as a module."""
    spec = importlib.util.spec_from_file_location("balanced", FOLDER.parent / "examples" / "balanced_network.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(neurons: int, ms: float, hz: float, threads: int, repeats: int) -> Figures:
    """Of one size."""
    torch.set_num_threads(threads)
    balanced = example()
    balanced.main(100, 10, 20.0, hz)
    runs = [balanced.main(neurons, neurons // 10, ms, hz) for _ in range(repeats)]
    # Each neuron hears a tenth of the neurons and of the external sources.
    arrivals = runs[0]["spikes"] * (neurons // 10) + balanced.EXTERNAL * hz * ms / 1000.0 * neurons / 10.0
    seconds = [statistics.median(run[name] for run in runs) for name in ("solve_s", "gradient_s")]
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Figures(arrivals, runs[0]["rate"], (seconds[0], seconds[1]), peak)


def page(rows: dict[int, Figures], args: argparse.Namespace) -> str:
    """The table."""
    options = f"--sizes {args.sizes} --ms {args.ms:g} --hz {args.hz:g} --repeats {args.repeats} --threads {args.threads}"
    lines = [
        f"Written by `python benchmarks/balanced_network.py {options} --write`, {date.today()}, on {processor()}, torch "
        f"{torch.__version__}. Wall seconds, medians of {args.repeats} runs, threads: {args.threads}.",
        "",
        "| neurons | synapses | spikes/s | arrivals | solve, s | ns per arrival | gradient, s | ns per arrival | peak, GB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for n, x in rows.items():
        each = [1e9 * s / x.arrivals for s in x.seconds]
        cells = [n, f"{n * (n // 10) + n * 100:.2g}", f"{x.rate:.1f}", f"{x.arrivals:.2g}"]
        cells += [f"{x.seconds[0]:.2f}", f"{each[0]:.0f}", f"{x.seconds[1]:.2f}", f"{each[1]:.0f}", f"{x.peak / 1e9:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if len(rows) > 1:
        logs = [math.log(x.arrivals) for x in rows.values()]
        slopes = [np.polyfit(logs, [math.log(x.seconds[k]) for x in rows.values()], 1)[0] for k in (0, 1)]
        lines += ["", f"Seconds grow as arrivals to the power {slopes[0]:.2f} (solve) and {slopes[1]:.2f} (gradient)."]
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sizes", default="1250,2500,5000,10000", help="numbers of neurons, with commas between")
    options.add_argument("--ms", type=float, default=500.0)
    options.add_argument("--hz", type=float, default=15.0, help="of each Poisson source")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--write", action="store_true", help="the page of results")
    args = options.parse_args()
    rows: dict[int, Figures] = {}
    for n in map(int, args.sizes.split(",")):
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # so that each has a peak of its own
            rows[n] = pool.apply(measure, (n, args.ms, args.hz, args.threads, args.repeats))
    text = page(rows, args)
    print(text)
    if args.write:
        PAGE.write_text(f"# A balanced random network\n\n{text}\n")


if __name__ == "__main__":
    main()
