#!/bin/sh
# NEST's LIF neurons with exponential currents, into nest_exp.npz beside this file: spikes of 1,600 random neurons of
# iaf_psc_exp_ps, which places them between grid points, at 0.1 ms; first spikes of the same neurons as iaf_psc_exp, on the grid;
# and as what delays and refractory times act at several resolutions.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile nest-simulator==3.10.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - "$here/nest_exp.npz" <<'EOF'
import sys
from datetime import date

import nest
import numpy as np

nest.verbosity = nest.VerbosityLevel.ERROR
NEURONS, INPUTS, EACH, DURATION, STEP = 1600, 8, 15, 100.0, 0.1  # ms
random = np.random.default_rng(0)


def draw():
    """Parameters with few digits, which a file holds in little room; refractory times and delays are whole steps."""
    def uniform(low, high):
        return random.uniform(low, high, NEURONS).round(2)

    p = {"C_m": uniform(100, 400), "tau_m": uniform(5, 30), "tau_syn_ex": uniform(0.5, 8), "tau_syn_in": uniform(0.5, 12)}
    p |= {"E_L": uniform(-75, -60), "t_ref": random.integers(1, 51, NEURONS) / 10}
    p |= {"V_th": p["E_L"] + uniform(5, 20)}
    p |= {"V_reset": (p["V_th"] - uniform(4, 25)).round(2), "V_th": p["V_th"].round(2)}
    p |= {"I_e": ((p["V_th"] - p["E_L"]) * p["C_m"] / p["tau_m"] * random.uniform(-0.5, 1.1, NEURONS)).round(2)}
    # An input spike lifts a neuron by some part of the way to its threshold, or lowers it.
    unit = (p["V_th"] - p["E_L"]) * p["C_m"] / p["tau_syn_ex"]
    weights = (unit[:, None] * random.normal(0.15, 0.5, (NEURONS, INPUTS))).round().astype(np.int16)
    return p, weights, random.integers(1, 31, (NEURONS, INPUTS)).astype(np.int8)


def spikes(model, parameters, weights, delay_steps, inputs):
    nest.ResetKernel()
    nest.resolution = STEP
    given = {name: value.tolist() for name, value in (parameters | {"V_m": parameters["E_L"]}).items()}
    neurons = nest.Create(model, NEURONS, params=given)
    precise = model.endswith("_ps")
    sources = nest.Create("spike_generator", INPUTS, params=[{"spike_times": x, "precise_times": precise} for x in inputs])
    synapses = {"weight": weights.astype(float), "delay": delay_steps * STEP}
    nest.Connect(sources, neurons, "all_to_all", synapses)
    recorder = nest.Create("spike_recorder")
    nest.Connect(neurons, recorder)
    nest.Simulate(DURATION + 1.0)
    neuron, time = recorder.events["senders"] - neurons[0].global_id, recorder.events["times"]
    kept = time <= DURATION
    order = np.lexsort((time[kept], neuron[kept]))
    return neuron[kept][order].astype(np.int16), time[kept][order]


def delay(h, d):
    """As what a delay acts; NaN where it is refused."""
    nest.ResetKernel()
    nest.resolution = h
    source, relay, recorder = nest.Create("spike_generator", {"spike_times": [5.0]}), *map(nest.Create, ("parrot_neuron", "spike_recorder"))
    try:
        nest.Connect(source, relay, syn_spec={"delay": d})
    except nest.NESTError:
        return np.nan
    nest.Connect(relay, recorder, syn_spec={"delay": max(h, 1.0)})
    nest.Simulate(20.0)
    return float(recorder.events["times"][0]) - 5.0


def refractory(model, h, t_ref):
    """How much longer than without it an interval under a constant current is; NaN where it is refused."""

    def interval(t):
        nest.ResetKernel()
        nest.resolution = h
        neuron, recorder = nest.Create(model, params={"t_ref": t, "I_e": 500.0}), nest.Create("spike_recorder")
        nest.Connect(neuron, recorder, syn_spec={"delay": max(h, 1.0)})
        nest.Simulate(200.0)
        return float(np.diff(recorder.events["times"])[0])

    try:
        return interval(t_ref) - interval(10.0) + 10.0
    except nest.NESTError:
        return np.nan


parameters, weights, delay_steps = draw()
inputs = np.sort(random.uniform(0.5, DURATION - 10.0, (INPUTS, EACH)), axis=1)
grid = np.unique(np.ceil(inputs * 10.0).astype(np.int16), axis=1)  # in steps
neuron, time = spikes("iaf_psc_exp_ps", parameters, weights, delay_steps, [x.tolist() for x in inputs])
own, labels = spikes("iaf_psc_exp", parameters, weights, delay_steps, [(np.unique(x) / 10.0).round(1).tolist() for x in grid])
which, place = np.unique(own, return_index=True)
first = np.full(NEURONS, -1, np.int16)
first[which] = np.rint(labels[place] / STEP)
rounded = {}
for h in (0.1, 0.25, 1.0):
    delays = [round(x * h, 6) for x in (0.4, 0.49, 0.5, 0.6, 1.0, 1.4, 1.49, 1.4999, 1.5, 1.6, 2.5, 3.5, 7.5)]
    times = [0.0, *(round(x * h, 6) for x in (0.4, 1.0, 1.4, 1.5, 2.5, 3.0, 7.004, 7.2, 9.99))]
    times += [3.0 * h + x for x in (0.0004, 0.0005, 0.0006, 0.001)]  # NEST counts microseconds
    rounded[f"delay_{h}"] = np.array([(d, delay(h, d)) for d in delays])
    for model in ("iaf_psc_exp_ps", "iaf_psc_exp"):
        rounded[f"{model}_{h}"] = np.array([(t, refractory(model, h, t)) for t in times])
np.savez_compressed(
    sys.argv[1], nest=nest.__version__, date=str(date.today()), duration=DURATION, step=STEP, weights=weights,
    delay_steps=delay_steps, inputs=inputs, grid=grid, neuron=neuron, time=time, first=first, **parameters, **rounded,
)
print("nest", nest.__version__, len(time), "spikes of", len(np.unique(neuron)), "neurons; on the grid", len(which), "neurons")
for name, rows in rounded.items():
    print(name, *(f"{a:.6g}->{b:.6g}" for a, b in rows))
EOF
