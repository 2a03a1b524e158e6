#!/bin/sh
# NEST: a GLIF neuron of level 5 falls silent where its threshold follows the voltage at the membrane's own rate.
#
# Expected: glif_psc advances the voltage component of its threshold by the exact solution of a linear equation, and its page asks
# th_voltage_decay to be positive. At th_voltage_decay = g/C_m it spikes as it does a hair beside it.
# Seen: no spike under a current that makes 22 of them at 0.0999999 and 0.1000001 per ms. The component is NaN, of a division by
# the difference of the rates, and nothing tells.
# Source: https://nest-simulator.readthedocs.io/en/stable/models/glif_psc.html
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile nest-simulator==3.10.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import math

import nest

nest.verbosity = nest.VerbosityLevel.ERROR
PARTS = {"spike_dependent_threshold": True, "after_spike_currents": True, "adapting_threshold": True}

def spikes(decay):
    nest.ResetKernel()
    neuron = nest.Create("glif_psc", params={**PARTS, "C_m": 100.0, "g": 10.0, "th_voltage_decay": decay})
    source = nest.Create("dc_generator", params={"amplitude": 500.0})
    recorder = nest.Create("spike_recorder")
    nest.Connect(source, neuron)
    nest.Connect(neuron, recorder)
    nest.Simulate(400.0)
    return recorder.n_events, float(neuron.threshold_voltage)

print("nest", nest.__version__)
found = {decay: spikes(decay) for decay in (0.0999999, 0.1, 0.1000001)}
for decay, (count, threshold) in found.items():
    print(f"g/C_m = 0.1/ms, th_voltage_decay {decay}/ms: {count} spikes, voltage component {threshold}")
assert found[0.0999999][0] == found[0.1000001][0] == 22
assert found[0.1][0] == 0
assert math.isnan(found[0.1][1])
EOF
