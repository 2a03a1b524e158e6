#!/bin/sh
# Spikes of published neurons and their slopes by the conductances, by SUNDIALS' CVODE (BDF, and Adams for the check of it), into
# sundials.json beside this file. The equations are written here once more; slopes are ∂v/∂g of the sensitivity equations,
# solved along with the neuron, by the imaginary part of f(y + iε ∂y/∂g), over -v̇ at the spike.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile scikit-sundae==1.2.0 numpy==2.4.6 scipy==1.17.1
cd "$work"
"$work/venv/bin/python" - "$here/sundials.json" <<'EOF'
import json
import sys

import numpy as np
import sksundae
from numpy import cosh, exp, tanh
from sksundae.cvode import CVODE

TINY = 1e-30


def ratio(x, y):
    return np.where(np.abs(x) < 1e-7, y - x / 2, x / (exp(x / y) - 1))


def gates(y, rates):
    return [a * (1 - x) - b * x for x, (a, b) in zip(y, rates)]


def squid(y, current, c):
    v, m, h, n = y
    u = v + 65
    rates = (
        (0.1 * ratio(25 - u, 10), 4 * exp(-u / 18)),
        (0.07 * exp(-u / 20), 1 / (exp((30 - u) / 10) + 1)),
        (0.01 * ratio(10 - u, 10), 0.125 * exp(-u / 80)),
    )
    ionic = c["g_na"] * m**3 * h * (v - 50) + c["g_k"] * n**4 * (v + 77) + c["g_l"] * (v + 54.387)
    return np.array([current - ionic, *gates((m, h, n), rates)])


def cortical(y, current, c):
    v, m, h, n, p = y
    u = v + 56.2
    rates = (
        (0.32 * ratio(13 - u, 4), 0.28 * ratio(u - 40, 5)),
        (0.128 * exp((17 - u) / 18), 4 / (1 + exp((40 - u) / 5))),
        (0.032 * ratio(15 - u, 5), 0.5 * exp((10 - u) / 40)),
    )
    ionic = c["g_na"] * m**3 * h * (v - 50) + (c["g_k"] * n**4 + c["g_m"] * p) * (v + 90) + c["g_l"] * (v + 70.3)
    slow = (1 / (1 + exp(-(v + 35) / 10)) - p) * (3.3 * exp((v + 35) / 20) + exp(-(v + 35) / 20)) / 608
    return np.array([current - ionic, *gates((m, h, n), rates), slow])


def wang_buzsaki(y, current, c):
    v, h, n = y
    a, b = 0.1 * ratio(-(v + 35), 10), 4 * exp(-(v + 60) / 18)
    rates = (
        (0.07 * exp(-(v + 58) / 20), 1 / (exp(-(v + 28) / 10) + 1)),
        (0.01 * ratio(-(v + 34), 10), 0.125 * exp(-(v + 44) / 80)),
    )
    ionic = c["g_na"] * (a / (a + b)) ** 3 * h * (v - 55) + c["g_k"] * n**4 * (v + 90) + c["g_l"] * (v + 65)
    return np.array([current - ionic, *(5 * x for x in gates((h, n), rates))])


def morris_lecar(y, current, c):
    v, w = y
    m, inf = (1 + tanh((v + 1.2) / 18)) / 2, (1 + tanh((v - 2) / 30)) / 2
    ionic = c["g_l"] * (v + 60) + c["g_ca"] * m * (v - 120) + c["g_k"] * w * (v + 84)
    return np.array([(current - ionic) / 20, 0.04 * cosh((v - 2) / 60) * (inf - w)])


MODELS = {  # f, conductances, state at the start, current, end in ms
    "squid": (squid, {"g_na": 120.0, "g_k": 36.0, "g_l": 0.3}, [-65.0, 0.05, 0.6, 0.32], 10.0, 50.0),
    "regular spiking": (cortical, {"g_na": 56.0, "g_k": 6.0, "g_m": 0.075, "g_l": 0.0205}, [-72.0, 0.0, 1.0, 0.0, 0.02], 2.0, 60.0),
    "wang-buzsaki": (wang_buzsaki, {"g_na": 35.0, "g_k": 9.0, "g_l": 0.1}, [-64.0, 0.78, 0.09], 1.0, 40.0),
    "morris-lecar": (morris_lecar, {"g_ca": 4.4, "g_k": 8.0, "g_l": 2.0}, [-60.0, 0.015], 100.0, 250.0),
}


def solved(field, conductances, y0, current, end, method):
    names, n = list(conductances), len(y0)
    moves = {name: 1j * TINY * np.eye(len(names))[k] for k, name in enumerate(names)}
    moved = {name: g + moves[name] for name, g in conductances.items()}

    def both(t, x, out):
        y, s = x[:n], x[n:].reshape(n, -1)
        out[:n] = field(y, current, conductances)
        out[n:] = (field(y[:, None] + 1j * TINY * s, current, moved).imag / TINY).ravel()

    def upward(t, x, events):
        events[0] = x[0]

    upward.terminal, upward.direction = [False], [1]
    options = {"rtol": 1e-12, "atol": 1e-13, "max_num_steps": 1_000_000, "max_step": 0.05}
    solver = CVODE(both, method=method, eventsfn=upward, num_events=1, **options)
    found = solver.solve([0.0, end], np.append(y0, np.zeros(n * len(names))))
    assert found.success, found.message
    slopes = [list(-x[n : n + len(names)] / field(x[:n], current, conductances)[0]) for x in found.y_events]
    return [float(t) for t in found.t_events], slopes, list(found.y[-1][:n])


found = {}
for name, (field, conductances, y0, current, end) in MODELS.items():
    spikes, slopes, last = solved(field, conductances, np.array(y0), current, end, "BDF")
    again, other, _ = solved(field, conductances, np.array(y0), current, end, "Adams")
    between = max(abs(a - b) for a, b in zip(spikes, again, strict=True))
    off = float(np.abs(np.array(slopes) - np.array(other)).max() / np.abs(np.array(slopes)).max())
    print(f"{name}: {len(spikes)} spikes, BDF and Adams {between:.1e} ms and {off:.1e} of the slopes apart")
    found[name] = {
        "y0": y0, "current": current, "end": end, "conductances": conductances, "spikes": spikes, "slopes": slopes, "last": last,
    }
with open(sys.argv[1], "w") as file:
    json.dump({"scikit-sundae": sksundae.__version__, "sundials": str(sksundae.SUNDIALS_VERSION), "found": found}, file)
    file.write("\n")
EOF
