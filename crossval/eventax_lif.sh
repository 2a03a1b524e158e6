#!/bin/sh
# eventax's LIF layers, into eventax_lif.json beside this file: all spikes of the outputs and the gradient of the sum of squares of
# their first times, by its default solver, Euler steps, of two lengths, and by adaptive steps with a root finder of tight
# tolerance in place of its default's 0.01.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile eventax==0.1.0 diffrax==0.7.2 equinox==0.13.8 \
    optimistix==0.1.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - "$here/eventax_lif.json" <<'EOF'
import json
import sys
from datetime import date
from importlib.metadata import version

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)
import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optimistix
from eventax.evnn import FFEvNN
from eventax.neuron_models import LIF

SAMPLES, INPUTS, HIDDEN, OUTPUTS, DURATION = 2, 4, 6, 2, 30.0  # ms
CONSTANTS = {"tmem": 12.0, "tsyn": 5.0, "thresh": 1.0}
random = np.random.default_rng(0)
w0 = random.normal(2.5, 1.2, (HIDDEN, INPUTS)).round(3)
w1 = random.normal(1.2, 0.6, (OUTPUTS, HIDDEN)).round(3)
inputs = random.uniform(0.0, 12.0, (SAMPLES, INPUTS)).round(3)
# Rows are sources: hidden neurons, outputs, inputs; columns are targets.
whole = np.zeros((HIDDEN + OUTPUTS + INPUTS, HIDDEN + OUTPUTS))
whole[HIDDEN + OUTPUTS :, :HIDDEN], whole[:HIDDEN, HIDDEN:] = w0.T, w1.T
SOLVERS = {
    "Euler 0.02": {"solver_stepsize": 0.02},
    "Euler 0.01": {"solver_stepsize": 0.01},
    "Tsit5": {
        "solver_stepsize": 0.01, "solver": diffrax.Tsit5(), "stepsize_controller": diffrax.PIDController(rtol=1e-10, atol=1e-10),
        "root_finder": optimistix.Newton(1e-12, 1e-12, optimistix.rms_norm),
    },
}


def run(options):
    net = FFEvNN(
        [HIDDEN, OUTPUTS], INPUTS, LIF, DURATION, key=jax.random.PRNGKey(0), max_event_steps=200, dtype=jnp.float64,
        init_weights=jnp.asarray(whole), init_bias=0.0, **CONSTANTS, **options,
    )

    def loss(net):
        spikes = jax.vmap(lambda times: net.spikes_until_t(times[:, None], DURATION, 40))(jnp.asarray(inputs))
        return jnp.square(jnp.where(jnp.isinf(spikes[..., 0]), 0.0, spikes[..., 0])).sum(), spikes

    (value, spikes), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(net)
    g = np.asarray(gradient.neuron_model.weights)
    rows = [[[t for t in neuron if np.isfinite(t)] for neuron in sample] for sample in spikes.tolist()]
    return {
        "spikes": rows, "loss": float(value), "d_w0": g[HIDDEN + OUTPUTS :, :HIDDEN].T.tolist(), "d_w1": g[:HIDDEN, HIDDEN:].T.tolist(),
    }


found = {name: run(options) for name, options in SOLVERS.items()}
result = {"eventax": version("eventax"), "diffrax": version("diffrax"), "date": str(date.today()), "duration": DURATION}
result |= {"constants": CONSTANTS, "w0": w0.tolist(), "w1": w1.tolist(), "inputs": inputs.tolist(), "found": found}
with open(sys.argv[1], "w") as file:
    json.dump(result, file)
    file.write("\n")
print("eventax", version("eventax"), {name: (x["loss"], [[len(n) for n in s] for s in x["spikes"]]) for name, x in found.items()})
EOF
