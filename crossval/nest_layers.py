"""Networks that `LIFNetwork.to_nest` hands to NEST: drawn for `nest_layers.sh`, and again from what it recorded.

python crossval/nest_layers.py FILE    numbers of the networks, and what NEST is given
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adjsnn import LIFNetwork

STEP, DURATION, E_L = 0.1, 120.0, -65.0  # ms, ms, mV
INPUTS, SIZES = 12, (30, 10)
CASES = {"one receptor": 1, "two receptors": 2}


def drawn(receptors: int, random: np.random.Generator) -> dict[str, Any]:
    """Options of a network of two layers, the first recurrent, in mV: few digits, and whole steps where NEST has a grid."""

    def uniform(low: float, high: float, *shape: int) -> Any:
        return random.uniform(low, high, shape).round(2).tolist()

    def steps(low: int, high: int, *shape: int) -> Any:
        return (random.integers(low, high, shape) / 10).tolist()

    first, second = SIZES
    of_each = {"tau_mem": (8.0, 25.0), "v_th": (8.0, 15.0), "v_reset": (-5.0, 3.0), "bias": (0.0, 6.0)}
    numbers: dict[str, Any] = {name: [uniform(*ends, n) for n in SIZES] for name, ends in of_each.items()}
    numbers["tau_syn"] = [uniform(1.5, 8.0, *((n,) if receptors == 1 else (receptors, n))) for n in SIZES]
    numbers["refractory"] = [steps(1, 40, n) for n in SIZES]
    numbers["delays"] = [steps(1, 30, first, INPUTS), steps(1, 30, second, first)]
    numbers["rec_delays"] = [steps(1, 30, first, first), None]
    shapes = {"w_in.0": (first, INPUTS), "w_in.1": (second, first), "w_rec.0": (first, first)}
    weights = {}
    for (name, shape), size in zip(shapes.items(), (14.0, 8.0, 3.0), strict=True):
        w = random.normal(0.3 * size, size, shape).round(1)
        weights[name] = (w if receptors == 1 else np.stack([w.clip(min=0.0), w.clip(max=0.0)])).tolist()
    return {"receptors": receptors, "numbers": numbers, "weights": weights}


def network(found: dict[str, Any]) -> LIFNetwork:
    """The network of these numbers."""
    numbers: dict[str, Any] = {
        name: tuple(None if x is None else torch.tensor(x, dtype=torch.float64) for x in rows)
        for name, rows in found["numbers"].items()
    }
    receptors = None if found["receptors"] == 1 else found["receptors"]
    net = LIFNetwork(INPUTS, SIZES, recurrent=(True, False), receptors=receptors, dtype=torch.float64, **numbers)
    with torch.no_grad():
        for name, w in found["weights"].items():
            net.get_parameter(name).copy_(torch.tensor(w, dtype=torch.float64))
    return net


def main() -> None:
    random = np.random.default_rng(0)
    inputs = [np.sort(random.uniform(0.5, DURATION - 20.0, 14)).tolist() for _ in range(INPUTS)]
    cases = {name: drawn(receptors, random) for name, receptors in CASES.items()}
    layers = {name: network(case).to_nest(E_L=E_L) for name, case in cases.items()}
    whole = {"step": STEP, "duration": DURATION, "inputs": inputs, "cases": cases, "layers": layers}
    Path(sys.argv[1]).write_text(json.dumps(whole, default=np.ndarray.tolist))


if __name__ == "__main__":
    main()
