"""What a user waits for once, by two checkouts of adjsnn: the import, and the first solve and gradient of each kind of network.

    python benchmarks/first_calls.py OTHER_CHECKOUT [--rounds 3] [--only lif]

Each number is taken in a process of its own, the two checkouts in turn. `import` is the time of `import adjsnn` where torch is
loaded already. The others are the CPU time of a first solve and its gradient: compiled anew in an empty NUMBA_CACHE_DIR, and
once more with the code that is kept there by now.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve()
IMPORT = "import torch, time; start = time.perf_counter(); import adjsnn; print(time.perf_counter() - start)"
SOLVE = """
import time, torch, adjsnn
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
kind = {kind!r}
if kind.startswith("lif"):
    net = adjsnn.LIFNetwork(4, (6,), recurrent="recurrent" in kind, generator=generator)
    x = adjsnn.SpikeTrains.from_list([[(1.0 + k, k) for k in range(4)]] * 2, n_neurons=4, t_max=30.0)
    with torch.no_grad():
        net.w_in[0].fill_(6.0)
    solve = lambda: adjsnn.solve(net, x, ts=[10.0, 20.0]).v[0].sum()
else:
    net = adjsnn.GatedSynapseNetwork(2, 8, 2, generator=generator)
    solve = lambda: adjsnn.solve(net, torch.ones(20, 2, 2), dt=0.5, method=kind.split()[-1]).readout.sum()
start = time.process_time()
solve().backward()
print(time.process_time() - start)
"""
KINDS = ("lif feed-forward", "lif recurrent", "gated euler", "gated rk4")


def run(checkout: Path, code: str, cache: str | None = None) -> float:
    """What a process prints that finds adjsnn in the checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout)} | ({"NUMBA_CACHE_DIR": cache} if cache else {})
    code += "\nprint(adjsnn.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=checkout, capture_output=True, text=True, check=True
    )  # in the checkout, since -c looks there first
    seconds, origin = done.stdout.split()
    assert Path(origin).is_relative_to(checkout), f"adjsnn came from {origin}, not from {checkout}"
    return float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a name")
    args = parser.parse_args()
    checkouts = {"this": HERE.parents[1], "other": args.other.resolve()}
    rows: dict[str, dict[str, list[float]]] = {}
    for number in range(args.rounds):
        order = list(checkouts.items())[:: 1 if number % 2 else -1]
        for kind in (k for k in ("import", *KINDS) if args.only in k):
            for name, checkout in order:
                if kind == "import":
                    for _ in range(5):
                        rows.setdefault(kind, {}).setdefault(name, []).append(run(checkout, IMPORT))
                    continue
                with tempfile.TemporaryDirectory() as cache:
                    code = SOLVE.format(kind=kind)
                    for state in ("compiled", "kept"):
                        rows.setdefault(f"{kind}, {state}", {}).setdefault(name, []).append(run(checkout, code, cache))
    print("| first call | this, s | other, s | ratio |\n|---|---|---|---|")
    for kind, times in rows.items():
        this, other = (statistics.median(times[name]) for name in ("this", "other"))
        print(f"| {kind} | {this:.3f} | {other:.3f} | {this / other:.3f} |")


if __name__ == "__main__":
    main()
