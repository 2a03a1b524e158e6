"""Layers of other libraries whose neurons spike, held against adjsnn's network of the same numbers by `adjsnn.judge`.

    python benchmarks/peers_judged.py [--only lif] [--peers jaxsnn,norse] [--entries 3] [--small] [--write]

The networks are those of `peers.py`, in float64, and so are the processes, each in an environment of its own, which are handed
weights and a cotangent of the output neurons' first spike times. What they answer is a function of the weights to torch, and
so a layer to the judge. The loss is a cross-entropy of first spikes for all; libraries that step on a grid take the end of the
step as the time of a spike, and their surrogate for its derivative. Nothing is timed.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import peers
import protocol
import torch
from peers import PROBLEMS, RESULTS, ROWS, Failed, Row, Worker
from torch import Tensor

import adjsnn
from adjsnn.gradcheck.verdict import MEANING

PROBLEMS_JUDGED = ("lif", "if", "single-5")  # "single-784" is the layer of "single-5" again, at seconds for each question
TAU = 0.5  # ms, of the cross-entropy of first spikes
HEADS = ["library", "what it computes", "output spikes", "weights", "cosine", "off by", "off its own differences by", "verdict"]


class Pulled(torch.autograd.Function):
    """First spike times of a library's process, (B, N), as a function of two weights."""

    @staticmethod
    def forward(ctx: Any, worker: Worker, folder: Path, w0: Tensor, w1: Tensor) -> Tensor:
        ctx.worker, ctx.folder = worker, folder
        ctx.save_for_backward(w0, w1)
        return torch.from_numpy(ask(worker, folder, (w0, w1))["first"])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        found = ask(ctx.worker, ctx.folder, ctx.saved_tensors, cotangents[0])
        return None, None, *(torch.from_numpy(found[f"d_w{k}"]) for k in range(2))


def ask(worker: Worker, folder: Path, weights: Sequence[Tensor], cotangent: Tensor | None = None) -> peers.Results:
    """What the process answers to "pull"."""
    given = {f"w{k}": w.detach() for k, w in enumerate(weights)}
    protocol.save(folder / "given.npz", given if cotangent is None else given | {"c": cotangent})
    worker.ask(f"pull {folder / 'given.npz'}")
    return worker.results(folder / "pulled.npz")


def judged(worker: Worker, case: dict[str, np.ndarray], folder: Path, entries: int) -> Any:
    """The judge's report of a process that serves the problem of these arrays."""
    weights = [torch.from_numpy(case[name]).clone().requires_grad_() for name in ("w0", "w1")]
    labels, t_end = torch.from_numpy(case["labels"]), float(case["t_end"])
    numbers: dict[str, Any] = {name: float(case[name]) for name in ("tau_mem", "tau_syn", "v_th", "refractory")}
    sizes = [len(w) for w in weights]
    net = adjsnn.LIFNetwork(weights[0].shape[1], sizes, dtype=torch.float64, **numbers)
    scale = float(case["scale"])
    with torch.no_grad():
        for own, w in zip(net.w_in, weights, strict=True):
            own.copy_(scale * w)
    x = adjsnn.SpikeTrains(torch.from_numpy(case["idx"]), torch.from_numpy(case["time"]), net.n_in, t_end)

    def layer(_: adjsnn.SpikeTrains) -> Tensor:
        times: Any = Pulled.apply(worker, folder, *weights)
        return times

    def loss(first: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(-first.clamp(max=t_end) / TAU, labels)

    parameters = {f"w_in.{k}": (w, lambda w: scale * w) for k, w in enumerate(weights)}
    return adjsnn.judge(layer, net, x, loss, parameters=parameters, t_end=t_end, entries=entries)


def rows(libraries: set[str]) -> list[Row]:
    """Of each spiking layer one row; of those that are only timed on a clock, that one."""
    chosen = [row for row in ROWS if row.problem in PROBLEMS_JUDGED and row.library in libraries]
    known = {(row.library, row.options.get("step")) for row in chosen if row.problem == "lif"}
    clock = [row for row in ROWS if row.problem == "clock" and row.library in libraries]
    return chosen + [row._replace(problem="lif") for row in clock if (row.library, row.options["step"]) not in known]


def cells(version: str, row: Row, report: Any) -> list[str]:
    """A line of the table for each weight."""
    s = report.spikes
    told = f"{s.spikes}, exact {s.exact}: {s.missed} missed, {s.surplus} surplus; off by {s.median:.1g} ms (median), "
    told += f"{s.largest:.1g} (largest)"
    lines = []
    for k, of in enumerate(report.rows):
        own = "-" if of.differences is None else f"{of.differences:.1e}"
        head = [version, row.what, told] if k == 0 else ["", "", ""]
        lines.append([*head, of.parameter, f"{of.cosine:.4f}", f"{of.error:.1e}", own, of.verdict])
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def table(problem: str, chosen: Sequence[Row], options: argparse.Namespace, folder: Path) -> list[str]:
    lines = [f"## {PROBLEMS[problem].title}", "", f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    small = {"small": True} if options.small else {}
    file = folder / f"{problem}.npz"
    ours = Worker(
        Path(sys.executable), Row("adjsnn", "adjsnn_side.py", problem, (), ""), file, "float64", 1, {"problem": problem} | small
    )
    ours.ask("run")
    ours.close()
    with np.load(file) as arrays:
        case = dict(arrays)
    for row in chosen:
        worker = None
        try:
            worker = Worker(peers.environment(row.packages, options.environments), row, file, "float64", 1, small)
            report = judged(worker, case, folder, options.entries)
            print(report, "\n", file=sys.stderr, flush=True)
            lines += cells(worker.version, row, report)
        except (Failed, adjsnn.errors.AdjsnnError) as why:
            cell = str(why).replace("|", "\\|")
            lines.append(f"| {row.library} | {row.what} | - | - | - | - | - | {cell} |")
        finally:
            if worker is not None:
                worker.close()
    return [*lines, ""]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    libraries = {row.library for row in rows({row.library for row in ROWS})}
    parser.add_argument("--only", default="", help="problems, with commas between")
    parser.add_argument("--peers", default="", help="libraries, with commas between")
    parser.add_argument("--entries", type=int, default=3, help="of each weight, probed by differences")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adjsnn-peers"
    parser.add_argument("--environments", type=Path, default=cache, help="a folder for them; default %(default)s")
    parser.add_argument("--small", action="store_true", help="few samples and units, to see that all works")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/results/peers_judged.md")
    options = parser.parse_args(argv)
    wanted = {x for x in options.peers.split(",") if x} or libraries
    chosen = [row for row in rows(wanted) if not options.only or row.problem in options.only.split(",")]
    if not chosen or wanted - libraries:
        parser.error(f"nothing of that among {', '.join(sorted(libraries))} and {', '.join(PROBLEMS_JUDGED)}")
    if options.write and (options.small or options.only or options.peers):
        parser.error("--write is for all of them in full")
    lines = [
        "# Layers of other libraries, judged",
        "",
        f"By `adjsnn.judge`, in float64: adjsnn {adjsnn.__version__}, torch {torch.__version__}, {date.today()}. Written by "
        "`benchmarks/peers_judged.py`, which says how. Output spikes are matched by neuron in order, here the first of each. "
        "A gradient is off by the relative distance from adjsnn's of the same loss, and by that from central differences of "
        f"the library's own spikes, of {options.entries} entries and the one that is furthest off.",
        "",
    ]
    verdicts = set()
    with tempfile.TemporaryDirectory() as folder:
        for problem in dict.fromkeys(row.problem for row in chosen):
            found = table(problem, [row for row in chosen if row.problem == problem], options, Path(folder))
            verdicts |= {name for name in MEANING if any(line.endswith(f"| {name} |") for line in found)}
            lines += found
    lines += [f"- *{name}*: {MEANING[name]}." for name in MEANING if name in verdicts] + [""]
    page = "\n".join(lines)
    print(page)
    if options.write:
        (RESULTS / "peers_judged.md").write_text(page)


if __name__ == "__main__":
    main()
