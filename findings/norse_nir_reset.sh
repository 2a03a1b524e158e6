#!/bin/sh
# norse: the reset potential of a NIR node is not read.
#
# Expected: v_reset is a parameter of NIR's LIF node, to which the membrane is set at a spike. Under a constant input of 1.5,
# with tau = 10 ms, threshold 1 and steps of 1 ms, Euler steps of the documented equation fire 12, 18, 28 times in 0.2 s for
# v_reset of -1, 0, 0.5.
# Seen: 18 times in all three cases, without a warning; a resistance other than 1, which is not read either, is warned of.
# Source: LIF, https://github.com/neuromorphs/NIR, nir/ir/neuron.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.4.6 nir==1.0.8 nirtorch==2.6 norse==1.1.0
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import nir
import norse.torch
import numpy as np
import torch

def by_norse(v_reset):
    one = np.ones(1)
    lif = nir.LIF(tau=0.01 * one, r=one, v_leak=0.0 * one, v_threshold=one, v_reset=v_reset * one)
    nodes = {"input": nir.Input({"input": np.array([1])}), "lif": lif, "output": nir.Output({"output": np.array([1])})}
    net = norse.torch.from_nir(nir.NIRGraph(nodes=nodes, edges=[("input", "lif"), ("lif", "output")]), dt=0.001)
    state, fired = None, 0
    for _ in range(200):
        z, state = net(torch.full((1, 1), 1.5), state)
        fired += int(z)
    return fired

def by_equation(v_reset):
    v, fired = 0.0, 0
    for _ in range(200):
        v += 0.001 / 0.01 * (1.5 - v)
        if v > 1.0:
            v, fired = v_reset, fired + 1
    return fired

print("norse", version("norse"))
for v_reset in (-1.0, 0.0, 0.5):
    print(f"v_reset {v_reset}: {by_norse(v_reset)} spikes, by the equation {by_equation(v_reset)}")
assert [by_norse(v) for v in (-1.0, 0.0, 0.5)] == [18, 18, 18]
assert [by_equation(v) for v in (-1.0, 0.0, 0.5)] == [12, 18, 28]
EOF
