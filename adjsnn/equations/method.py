"""What the loops know of a Runge–Kutta method: its numbers, and its sums as source, without the weights that are 0."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from adjsnn.numerics.tableaus import Tableau

SUMS = ("stage_state", "end_state", "error_of", "slope_cotangent", "extend")


def method_numbers(tableau: Tableau) -> dict[str, Any]:
    """What `adjsnn.equations.cpu.names` says of the method."""
    n = tableau.stages
    a = np.zeros((n, n))
    for i, row in enumerate(tableau.a):
        a[i, : len(row)] = row
    return {
        "STAGES": n,
        "COUNT": n - tableau.first_same_as_last,
        "SAME": tableau.first_same_as_last,
        "A": a,
        "B": np.array(tableau.b),
        "NODES": np.array(tableau.c),
        "ERROR": np.array(tableau.b_error or (0.0,) * n),
        "DENSE": np.array([[*row, *(0.0,) * (max(map(len, tableau.dense)) - len(row))] for row in tableau.dense]),
    }


def method_source(tableau: Tableau) -> str:
    """Source of SUMS, in the order of the stages, as the operations on tensors are."""
    numbers = method_numbers(tableau)
    a, b, count = numbers["A"].tolist(), numbers["B"].tolist(), numbers["COUNT"]
    dense = numbers["DENSE"].T.tolist()
    states = [f"y[d] + h * ({_sum(row, 'slopes')})" if any(row) else "y[d]" for row in a]
    bars = [_sum([row[i] for row in a[:count]], "bars", f"{b[i]!r} * bar[d]" if b[i] else "") for i in range(count)]
    powers = [f"powers[{n}, k] = h * ({_sum(row, 'slopes')})" for n, row in enumerate(dense)]
    return "\n\n".join(
        [
            _by_stage("stage_state(i, h, y, slopes, state)", "state", states),
            _over_entries("end_state(h, y, slopes, new)", f"new[d] = y[d] + h * ({_sum(b[:count], 'slopes')})"),
            _over_entries("error_of(h, slopes, error)", f"error[d] = h * ({_sum(numbers['ERROR'].tolist(), 'slopes')})"),
            _by_stage("slope_cotangent(i, h, bar, bars, out)", "out", [f"h * ({x})" for x in bars]),
            "def extend(h, slopes, powers):\n    for k in range(len(WATCHED)):\n        d = WATCHED[k]\n"
            + "\n".join(f"        {line}" for line in powers),
        ]
    )


def _sum(weights: Iterable[float], of: str, first: str = "") -> str:
    terms = [first] if first else []
    return " + ".join([*terms, *(f"{w!r} * {of}[{j}, d]" for j, w in enumerate(weights) if w != 0.0)]) or "0.0"


def _over_entries(head: str, line: str) -> str:
    return f"def {head}:\n    for d in range(D):\n        {line}"


def _by_stage(head: str, out: str, values: list[str]) -> str:
    cases = [f"    if i == {i}:\n        for d in range(D):\n            {out}[d] = {x}" for i, x in enumerate(values)]
    return f"def {head}:\n" + "\n".join(cases)
