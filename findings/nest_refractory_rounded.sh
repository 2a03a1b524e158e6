#!/bin/sh
# NEST: the model with exact spike times rounds its refractory period up to whole steps.
#
# Expected: iaf_psc_exp_ps places spikes between grid points, and its page says that a neuron leaves refractoriness precisely
# one refractory period after its spike. Under a constant current t_ref = 2.04 ms makes intervals 0.04 ms longer than t_ref = 2
# ms.
# Seen: 0.1 ms longer, the same as t_ref = 2.1 ms, at the default resolution of 0.1 ms. t_ref reads back as 2.04.
# Source: https://nest-simulator.readthedocs.io/en/stable/models/iaf_psc_exp_ps.html
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile nest-simulator==3.10.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import nest
import numpy as np

nest.verbosity = nest.VerbosityLevel.ERROR

def interval(t_ref):
    nest.ResetKernel()
    nest.resolution = 0.1
    neuron = nest.Create("iaf_psc_exp_ps", params={"t_ref": t_ref, "I_e": 500.0})
    recorder = nest.Create("spike_recorder")
    nest.Connect(neuron, recorder)
    nest.Simulate(200.0)
    return float(np.diff(recorder.events["times"])[0]), float(neuron.t_ref)

print("nest", nest.__version__)
found = {t_ref: interval(t_ref) for t_ref in (2.0, 2.04, 2.1)}
for t_ref, (length, read_back) in found.items():
    print(f"t_ref {t_ref} ms: interval {length:.6f} ms, reads back {read_back} ms")
assert found[2.04][1] == 2.04
assert abs(found[2.04][0] - found[2.0][0] - 0.1) < 1e-6
assert abs(found[2.04][0] - found[2.1][0]) < 1e-6
EOF
