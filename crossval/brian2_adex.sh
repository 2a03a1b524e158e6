#!/bin/sh
# Brian2, into brian2_adex.json beside this file: spikes of exponential neurons whose text and units adjsnn.Equations takes as
# they are, in Runge–Kutta steps of 1 µs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile brian2==2.9.0 numpy==2.3.5 sympy==1.14.0
cd "$work"
"$work/venv/bin/python" - "$here/brian2_adex.json" <<'EOF'
import json
import sys
from datetime import date

import brian2
from brian2 import NeuronGroup, SpikeMonitor, defaultclock, ms, prefs, run, us

prefs.codegen.target = "numpy"
TEXT = """dv/dt = (g_l*(E_l - v) + g_l*D*exp((v - v_t)/D) - w + I)/C : volt
dw/dt = (a*(v - E_l) - w)/tau_w : amp
I : amp"""
PARAMETERS = {
    "g_l": "10*nS", "E_l": "-70*mV", "D": "2*mV", "v_t": "-50*mV", "C": "200*pF", "a": "2*nS", "tau_w": "30*ms", "v_r": "-58*mV",
    "b": "50*pA",
}
THRESHOLD, RESET, CURRENTS, DURATION = "v > -40*mV", "v = v_r; w += b", [450.0, 500.0, 600.0, 800.0], 80.0  # pA, ms
namespace = {name: eval(text, vars(brian2)) for name, text in PARAMETERS.items()}
defaultclock.dt = 1 * us
group = NeuronGroup(len(CURRENTS), TEXT, threshold=THRESHOLD, reset=RESET, method="rk4", namespace=namespace)
group.v, group.w, group.I = namespace["E_l"], 0 * brian2.pA, CURRENTS * brian2.pA
spikes = SpikeMonitor(group)
run(DURATION * ms)
found = {
    "package": f"brian2 {brian2.__version__}", "date": date.today().isoformat(), "text": TEXT, "threshold": THRESHOLD,
    "reset": RESET, "parameters": PARAMETERS, "currents": CURRENTS, "duration": DURATION, "step": 1e-3,
    "spikes": [[round(float(t / ms), 4) for t in spikes.t[spikes.i == k]] for k in range(len(CURRENTS))],
    "v": [float(x) for x in group.v / brian2.mV], "w": [float(x) for x in group.w / brian2.pA],
}
with open(sys.argv[1], "w") as file:
    json.dump(found, file, indent=1)
    file.write("\n")
EOF
