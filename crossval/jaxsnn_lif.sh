#!/bin/sh
# jaxsnn's event-based LIF layers, into jaxsnn_lif.json beside this file: first spikes of the outputs, all their counts, and the
# gradient by EventProp of the sum of squares of these times. At tau_mem = 2 tau_syn it has the next spike in closed form.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile jaxsnn==0.3.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - "$here/jaxsnn_lif.json" <<'EOF'
import json
import sys
from datetime import date
from importlib.metadata import version

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
from jaxsnn.event import modules, topology
from jaxsnn.event.loss import first_spike
from jaxsnn.event.types import Spike

SAMPLES, INPUTS, HIDDEN, OUTPUTS, DURATION, EVENTS = 4, 6, 12, 3, 40.0, 150  # ms; events of a layer and its input at most
CONSTANTS = {"tau_mem": 10.0, "tau_syn": 5.0, "v_th": 1.0}
random = np.random.default_rng(0)
weights = {"w0": random.normal(2.0, 1.2, (HIDDEN, INPUTS)).round(3), "w1": random.normal(0.6, 0.5, (OUTPUTS, HIDDEN)).round(3)}
inputs = np.sort(random.uniform(0.0, 20.0, (SAMPLES, INPUTS)).round(3), axis=1)
neurons = np.stack([random.permutation(INPUTS) for _ in range(SAMPLES)])
builder = topology.Topology(t_max=DURATION, backprop_method="eventprop")
builder.add({"inp": modules.Source(INPUTS)})
below = "inp"
for k, size in enumerate((HIDDEN, OUTPUTS)):
    layer = modules.LIF(size, EVENTS, modules.LIFParameters(**CONSTANTS))
    builder.add({f"syn{k}": modules.Linear(mean=0.0, std=1.0, min_delay=0.0), f"lif{k}": layer})
    builder.connect([(below, f"syn{k}"), (f"syn{k}", f"lif{k}")])
    below = f"lif{k}"
apply = builder.done()[1]
time, idx = jnp.asarray(inputs), jnp.asarray(neurons)
spikes = Spike(time=time, idx=idx, current=jnp.zeros_like(time), layer_idx=jnp.zeros_like(idx), internal=idx >= 0)


def loss(w):
    events = apply({"inp": spikes}, {f"syn{k}": w[f"w{k}"].T for k in range(2)})
    out = events["lif1"]
    first = jax.vmap(first_spike, in_axes=(0, None))(out, OUTPUTS)
    counts = jax.vmap(lambda i, own: jnp.zeros(OUTPUTS, int).at[i].add(own))(out.idx, out.internal)
    full = jnp.stack([(events[name].idx[:, -1] >= 0).any() for name in ("lif0", "lif1")])
    return jnp.square(jnp.where(jnp.isinf(first), 0.0, first)).sum(), (first, counts, full)


(value, (first, counts, full)), gradient = jax.value_and_grad(loss, has_aux=True)({k: jnp.asarray(w) for k, w in weights.items()})
assert not full.any(), "later spikes are missing"
result = {"jaxsnn": version("jaxsnn"), "jax": version("jax"), "date": str(date.today()), "duration": DURATION, "constants": CONSTANTS}
result |= {name: w.tolist() for name, w in weights.items()} | {"inputs": inputs.tolist(), "neurons": neurons.tolist()}
first = [[t if np.isfinite(t) else None for t in row] for row in first.tolist()]
result |= {"first": first, "counts": counts.tolist(), "loss": float(value)}
result |= {f"d_{name}": g.tolist() for name, g in gradient.items()}
with open(sys.argv[1], "w") as file:
    json.dump(result, file)
    file.write("\n")
print("jaxsnn", version("jaxsnn"), "spikes", counts.tolist(), "loss", float(value))
EOF
