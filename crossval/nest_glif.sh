#!/bin/sh
# Spike times of NEST's glif_psc (levels 1 to 5, its default parameters) under a constant current, at several resolutions, into
# nest_glif.json beside this file. NEST steps on a grid: a spike is at the end of its step, threshold, currents and refractory time
# are advanced in whole steps; a generator's current begins one delay, a step, after its start, and is counted from there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile nest-simulator==3.10.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - "$here/nest_glif.json" <<'EOF'
import json
import sys

import nest

nest.verbosity = nest.VerbosityLevel.ERROR
PARTS = ("spike_dependent_threshold", "after_spike_currents", "adapting_threshold")
LEVELS = {1: (), 2: PARTS[:1], 3: PARTS[1:2], 4: PARTS[:2], 5: PARTS}
CURRENT, DURATION = 420.0, 400.0  # pA, ms


def spikes(level, h):
    nest.ResetKernel()
    nest.resolution = h
    neuron = nest.Create("glif_psc", params={part: part in LEVELS[level] for part in PARTS})
    source = nest.Create("dc_generator", params={"amplitude": CURRENT})
    recorder = nest.Create("spike_recorder")
    nest.Connect(source, neuron, syn_spec={"delay": h})
    nest.Connect(neuron, recorder)
    nest.Simulate(DURATION)
    return [round(float(t) - h, 6) for t in recorder.events["times"]]


names = ("C_m", "g", "E_L", "V_th", "t_ref", "asc_amps", "asc_decay", "asc_r")
names += ("th_spike_add", "th_spike_decay", "th_voltage_index", "th_voltage_decay", "voltage_reset_add", "voltage_reset_fraction")
defaults = nest.GetDefaults("glif_psc")
parameters = {name: [float(x) for x in defaults[name]] if name.startswith("asc") else float(defaults[name]) for name in names}
found = {str(level): {str(h): spikes(level, h) for h in (0.1, 0.05, 0.025, 0.01, 0.005)} for level in LEVELS}
with open(sys.argv[1], "w") as file:
    json.dump(
        {"nest": nest.__version__, "parameters": parameters, "current": CURRENT, "duration": DURATION, "spikes": found}, file
    )
    file.write("\n")
print("nest", nest.__version__, {level: [len(x) for x in by_step.values()] for level, by_step in found.items()})
EOF
