#!/bin/sh
# Brian2, into brian2_layers.npz beside this file: spikes of three layers of LIF neurons, each with time constants of its own, in
# steps of 1 µs; and as what delays and refractory times act in steps of 0.1 ms.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile brian2==2.9.0 numpy==2.3.5 sympy==1.14.0
cd "$work"
"$work/venv/bin/python" - "$here/brian2_layers.npz" <<'EOF'
import sys
from datetime import date

import brian2
import numpy as np
from brian2 import Network, NeuronGroup, SpikeGeneratorGroup, SpikeMonitor, Synapses, defaultclock, mV, ms, nA, pA, pF, prefs, us

prefs.codegen.target = "numpy"
LAYERS, INPUTS, EACH, DURATION = (12, 10, 8), 6, 12, 60.0  # ms
EQUATIONS = """dv/dt = (E_L - v)/tau_m + (I + I_e)/C_m : volt (unless refractory)
dI/dt = -I/tau_s : amp
tau_m : second (constant)
tau_s : second (constant)
C_m : farad (constant)
I_e : amp (constant)
E_L : volt (constant)
V_th : volt (constant)
V_reset : volt (constant)
t_ref : second (constant)"""
random = np.random.default_rng(0)


def draw(n, sources, tau_m, tau_s, mean):
    """One layer; constants with few digits, times in whole microseconds."""
    def around(value, digits=2):
        return (value * random.uniform(0.8, 1.2, n)).round(digits)

    p = {"tau_m": around(tau_m), "tau_s": around(tau_s), "C_m": around(250.0), "E_L": -70.0 + around(2.0), "t_ref": around(2.0)}
    p["V_th"] = (p["E_L"] + around(12.0)).round(2)
    p["V_reset"] = (p["E_L"] - around(3.0)).round(2)
    p["I_e"] = (p["C_m"] / p["tau_m"] * around(4.0)).round(1)
    unit = 12.0 * 250.0 / tau_s
    return p | {
        "weights": (unit * random.normal(mean, 0.3, (n, sources))).round(1), "delays": random.uniform(0.5, 3.0, (n, sources)).round(3),
    }


def run_layers(layers, inputs, h):
    """Times (ms, of a step's beginning) and neurons of each layer."""
    defaultclock.dt = h * ms
    neuron, time = np.nonzero(inputs >= 0)
    source = SpikeGeneratorGroup(INPUTS, neuron, inputs[neuron, time] * us)
    parts, monitors = [source], []
    for p in layers:
        group = NeuronGroup(len(p["tau_m"]), EQUATIONS, threshold="v >= V_th", reset="v = V_reset", refractory="t_ref", method="exact")
        for name, unit in {"tau_m": ms, "tau_s": ms, "t_ref": ms, "C_m": pF, "I_e": pA, "E_L": mV, "V_th": mV, "V_reset": mV}.items():
            setattr(group, name, p[name] * unit)
        group.v = group.E_L
        synapses = Synapses(source, group, "w : amp", on_pre="I_post += w")
        post, pre = np.indices(p["weights"].shape)
        synapses.connect(i=pre.ravel(), j=post.ravel())
        synapses.w = p["weights"].ravel() * pA
        synapses.delay = p["delays"].ravel() * ms
        monitors.append(SpikeMonitor(group))
        parts += [group, synapses, monitors[-1]]
        source = group
    Network(*parts).run(DURATION * ms)
    return [(np.array(m.i), np.rint(np.array(m.t / us)) / 1000.0) for m in monitors]


def interval(refractory):
    defaultclock.dt = 0.1 * ms
    group = NeuronGroup(1, "dv/dt = 1/ms : 1 (unless refractory)", threshold="v >= 0.95", reset="v = 0", refractory=refractory * ms, method="euler")
    monitor = SpikeMonitor(group)
    Network(group, monitor).run(60 * ms)
    return float(np.round(np.diff(monitor.t / ms), 6)[0])


def arrival(delay):
    """How much later than with a delay of 0 a spike of 5 ms arrives."""

    def fires(d):
        defaultclock.dt = 0.1 * ms
        source = SpikeGeneratorGroup(1, [0], [5.0] * ms)
        group = NeuronGroup(1, "v : 1", threshold="v > 0.5", reset="v = 0")
        synapses = Synapses(source, group, on_pre="v_post += 1")
        synapses.connect()
        synapses.delay = d * ms
        monitor = SpikeMonitor(group)
        Network(source, group, synapses, monitor).run(20 * ms)
        return float(monitor.t[0] / ms)

    return round(fires(delay) - fires(0.0), 6)


sizes = (INPUTS, *LAYERS)
constants = ((20.0, 5.0, 0.5), (15.0, 3.0, 0.3), (12.0, 7.0, 0.3))
layers = [draw(n, m, *c) for n, m, c in zip(LAYERS, sizes, constants)]
inputs = np.sort(random.choice(np.arange(500, 45000), (INPUTS, EACH), replace=False), axis=1)  # µs
found = run_layers(layers, inputs, 0.001)
delays = [0.0, 0.04, 0.05, 0.06, 0.1, 0.14, 0.149, 0.15, 0.25, 0.35, 0.75, 1.449]
periods = [0.0, 0.04, 0.05, 0.1, 0.14, 0.15, 0.16, 0.1999, 0.2, 0.25, 0.3, 0.7, 0.75, 2.0, 2.04]
base = interval(0.0)
arrays = {f"{name}_{k}": value for k, p in enumerate(layers) for name, value in p.items()}
arrays |= {f"{name}_{k}": value for k, pair in enumerate(found) for name, value in zip(("neuron", "time"), pair)}
arrays["delay_0.1"] = np.array([(d, arrival(d)) for d in delays])
arrays["refractory_0.1"] = np.array([(r, round(interval(r) - base, 6)) for r in periods])
np.savez_compressed(sys.argv[1], brian2=brian2.__version__, date=str(date.today()), duration=DURATION, step=0.001, inputs=inputs, **arrays)
print("brian2", brian2.__version__, [len(time) for _, time in found], "spikes")
for name in ("delay_0.1", "refractory_0.1"):
    print(name, *(f"{a:.6g}->{b:.6g}" for a, b in arrays[name]))
EOF
