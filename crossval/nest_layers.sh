#!/bin/sh
# Networks of two layers, the first recurrent, as `LIFNetwork.to_nest` gives them to NEST: all spikes of iaf_psc_exp_ps, into
# nest_layers.json beside this file. adjsnn writes the networks in its own environment (ADJSNN, default .venv of this checkout), and
# the program below does with them what to_nest says, in another.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
ours=${ADJSNN:-$here/../.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
PYTHONPATH="$here/.." "$ours" "$here/nest_layers.py" "$work/networks.json"
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile nest-simulator==3.10.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - "$work/networks.json" "$here/nest_layers.json" <<'EOF'
import json
import sys
from datetime import date
from pathlib import Path

import nest

nest.verbosity = nest.VerbosityLevel.ERROR


def spikes(layers, inputs, step, duration):
    nest.ResetKernel()
    nest.resolution = step
    below = nest.Create("spike_generator", len(inputs), params=[{"spike_times": x, "precise_times": True} for x in inputs])
    found = []
    for x in layers:
        neurons = nest.Create(x["model"], x["n"], x["params"])
        for syn_spec in x["input"]:
            nest.Connect(below, neurons, "all_to_all", syn_spec)
        for syn_spec in x["recurrent"]:
            nest.Connect(neurons, neurons, "all_to_all", syn_spec)
        recorder, below = nest.Create("spike_recorder"), neurons
        nest.Connect(neurons, recorder)
        found.append((neurons[0].global_id, recorder))
    nest.Simulate(duration + 1.0)
    events = [(first, recorder.events) for first, recorder in found]
    pairs = [zip((e["senders"] - first).tolist(), e["times"].tolist()) for first, e in events]
    return [sorted((n, t) for n, t in row if t <= duration) for row in pairs]


given = json.loads(Path(sys.argv[1]).read_text())
layers = given.pop("layers")
for name, case in given["cases"].items():
    case["spikes"] = spikes(layers[name], given["inputs"], given["step"], given["duration"])
    print(name, [len(x) for x in case["spikes"]], "spikes")
Path(sys.argv[2]).write_text(json.dumps({"nest": nest.__version__, "date": str(date.today())} | given) + "\n")
print("nest", nest.__version__)
EOF
