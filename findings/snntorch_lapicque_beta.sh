#!/bin/sh
# snnTorch: the decay rate that is given to a Lapicque neuron is not the rate at which it decays.
#
# Expected: beta is the "RC potential decay rate", between 0 and 1, at which the membrane "decays exponentially"; the neuron is
# said to be equivalent to Leaky. Without input a membrane of 1 goes to beta, beta^2, beta^3, as that of Leaky does.
# Seen: beta is turned into RC = -1/ln(beta), and the step multiplies by 1 - 1/RC = 1 + ln(beta), its linear part: 0.307 for 0.5,
# less than 0 below 1/e = 0.37, so that the membrane changes its sign at every step, and less than -1 below 1/e^2 = 0.135: with
# 0.1 it goes to -1.30, 1.70, -2.21, 2.88 and beyond all bounds, without any input.
# Source: Lapicque, https://github.com/jeshraghian/snntorch, snntorch/_neurons/lapicque.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.4.6 snntorch==1.0.0
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import snntorch
import torch

def membranes(neuron):
    membrane, seen = torch.ones(1), []
    for _ in range(4):
        _, membrane = neuron(torch.zeros(1), membrane)
        seen.append(round(float(membrane), 4))
    return seen

print("snntorch", version("snntorch"))
seen = {}
for beta in (0.9, 0.5, 0.3, 0.1):
    pair = [kind(beta=beta, reset_mechanism="none") for kind in (snntorch.Leaky, snntorch.Lapicque)]
    leaky, seen[beta] = map(membranes, pair)
    print(f"beta {beta}: Leaky {leaky}, Lapicque {seen[beta]}")
    assert all(abs(value - beta ** (k + 1)) < 1e-4 for k, value in enumerate(leaky))
assert seen[0.5] == [0.3069, 0.0942, 0.0289, 0.0089]
assert seen[0.3][0] < 0.0 < seen[0.3][1]
assert seen[0.1] == [-1.3026, 1.6967, -2.2101, 2.8789]
EOF
