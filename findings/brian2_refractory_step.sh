#!/bin/sh
# Brian2: a refractory period of k steps holds the neuron for k - 1 steps; one of a single step does nothing.
#
# Expected: a membrane that climbs to threshold in 1.0 ms and is clamped for 0.5 ms after each spike fires every 1.5 ms.
# Seen: every 1.4 ms, and every 1.0 ms with a refractory period of one step (0.1 ms). The user guide defines the period as the
# time after a spike for which the neuron counts as refractory, and gives a condition on the step number of t - lastspike, with
# <=, as what a fixed time is turned into. That condition, written out, does hold for k steps; the fixed time does not.
# Source: https://brian2.readthedocs.io/en/2.9.0/user/refractoriness.html (the condition: https://github.com/brian-team/brian2,
# docs_sphinx/user/refractoriness.rst)
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile brian2==2.9.0 numpy==2.3.5 sympy==1.14.0
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import brian2
import numpy as np
from brian2 import NeuronGroup, SpikeMonitor, defaultclock, ms, prefs, run, start_scope

prefs.codegen.target = "numpy"

def interval(refractory):
    start_scope()
    defaultclock.dt = 0.1 * ms
    held = " (unless refractory)" if refractory else ""
    group = NeuronGroup(
        1, "dv/dt = 1/ms : 1" + held, threshold="v >= 0.95", reset="v = 0", refractory=refractory, method="euler"
    )
    spikes = SpikeMonitor(group)
    run(20 * ms)
    return float(np.round(np.diff(spikes.t / ms), 6)[0])

def written_out(steps):
    return interval(f"timestep(t - lastspike, dt) <= {steps}")

print("brian2", brian2.__version__, " interval without refractory period:", interval(False), "ms")
for steps in (1, 2, 5, 20):
    print(f"{steps} steps: interval {interval(steps * 0.1 * ms)} ms, by the written-out condition {written_out(steps)} ms")
    assert abs(interval(steps * 0.1 * ms) - (1.0 + 0.1 * (steps - 1))) < 1e-6
    assert abs(written_out(steps) - (1.0 + 0.1 * steps)) < 1e-6
assert interval(False) == 1.0
EOF
