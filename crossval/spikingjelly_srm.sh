#!/bin/sh
# SpikingJelly's timing_based.SRM, into spikingjelly_srm.json beside this file: all spike times of two layers of neurons without
# leak, v' = sum of the weights of the input spikes so far, and the gradient of a loss of the output's spike times.
# PyPI has torch with CUDA, several gigabytes; PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL may point to a build for the CPU.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile spikingjelly==2.0.0 torch==2.13.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - "$here/spikingjelly_srm.json" <<'EOF'
import json
import sys
from datetime import date
from importlib.metadata import version

import numpy as np
import torch
from spikingjelly.timing_based.functional import srm

SAMPLES, INPUTS, EACH, HIDDEN, OUTPUTS, DURATION = 4, 5, 2, 20, 3, 40.0  # ms
random = np.random.default_rng(0)
w0 = random.normal(0.02, 0.015, (HIDDEN, INPUTS)).round(4)
w1 = random.normal(0.01, 0.008, (OUTPUTS, HIDDEN)).round(4)
inputs = np.sort(random.uniform(0.0, 20.0, (SAMPLES, INPUTS * EACH)).round(3), axis=1)
neurons = np.stack([random.permutation(np.repeat(np.arange(INPUTS), EACH)) for _ in range(SAMPLES)])
weights = [torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in (w0, w1)]
bounds = torch.arange(SAMPLES + 1) * INPUTS * EACH
room = 64  # spikes of a neuron; fewer come
hidden = srm(torch.tensor(inputs.ravel()), torch.tensor(neurons.ravel()), bounds, weights[0], DURATION, 1.0, room)
out = srm(*hidden, weights[1], DURATION, 1.0, room)
loss = out[0].square().sum()
gradients = torch.autograd.grad(loss, weights)


def listed(times, idx, bounds):
    """(time, neuron) of each sample, in time."""
    rows = zip(bounds[:-1].tolist(), bounds[1:].tolist())
    return [sorted(zip(times[a:b].tolist(), idx[a:b].tolist())) for a, b in rows]


result = {"spikingjelly": version("spikingjelly"), "torch": torch.__version__, "date": str(date.today()), "duration": DURATION}
result |= {"w0": w0.tolist(), "w1": w1.tolist(), "inputs": inputs.tolist(), "neurons": neurons.tolist()}
result |= {"hidden": listed(*hidden), "out": listed(*out), "loss": loss.item()}
result |= {f"d_w{k}": g.tolist() for k, g in enumerate(gradients)}
with open(sys.argv[1], "w") as file:
    json.dump(result, file)
    file.write("\n")
print("spikingjelly", version("spikingjelly"), len(hidden[0]), "and", len(out[0]), "spikes, loss", loss.item())
EOF
