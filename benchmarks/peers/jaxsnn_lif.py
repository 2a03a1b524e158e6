"""The layered LIF network in jaxsnn: one gradient of the first-spike cross-entropy by its event-based EventProp, jitted.

Every layer records a fixed number of events, its input spikes and its own. Here it is the largest number that adjsnn finds in
a sample, and `SPARE` more; where that is too few, spikes would be dropped without a word, so `RuntimeError` is raised.

jaxsnn's `LIF` finds the next spike in closed form, which exists for τ_m = τ_s and τ_m = 2 τ_s; given other time constants it
takes one of these two all the same. Such layers are put together here from jaxsnn's own step, flow, jump and adjoint with its
Newton solver in place of the closed form. That makes six steps and calls a neuron silent where they end more than 1e-6 below
the threshold, so a spike that barely crosses can be missed; and it is slower than the closed form.

Its equations are (2.1) and (2.2), so weights are taken as they are; nothing in it depends on the unit of time, here ms. The
adjoint holds for a reset to zero, no bias, no delays and no refractory time.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import protocol

SPARE = 3  # events, beyond the largest number in a sample
TAU_0, ALPHA, TAU_1 = 0.5, 0.003, 6.4  # of the first-spike cross-entropy, ms, the defaults of adjsnn's
LAYERS = ("lif0", "lif1")


def build(case: protocol.Case) -> protocol.Run:
    jax = protocol.jax_of(case)
    jnp, first_spike = jax.numpy, import_module("jaxsnn.event.loss").first_spike
    weights = {f"syn{k}": jnp.asarray(case[f"w{k}"].T) for k in range(2)}
    apply, t_end, outputs = _network(case), case.number("t_end"), len(case["w1"])
    spikes, classes = _input(case, jnp), jnp.asarray(case["labels"])

    def loss(weights: dict[str, Any]) -> tuple[Any, Any]:
        events = apply({"inp": spikes}, weights)
        out = events["lif1"]
        first = jax.vmap(first_spike, in_axes=(0, None))(out, outputs)
        time = jnp.where(jnp.isinf(first), t_end, first)
        right = jnp.take_along_axis(time, classes[:, None], 1)[:, 0]
        each = right / TAU_0 + jax.nn.logsumexp(-time / TAU_0, axis=1) + ALPHA * jnp.expm1(right / TAU_1)
        counts = jax.vmap(lambda idx, own: jnp.zeros(outputs).at[idx].add(own))(out.idx, out.internal)
        full = jnp.stack([(events[name].idx[:, -1] >= 0).any() for name in LAYERS])
        return each.mean(), (counts, first, full)

    derivative = jax.jit(jax.grad(loss, has_aux=True))

    def run() -> protocol.Results:
        found, (counts, first, full) = jax.block_until_ready(derivative(weights))
        if full.any():
            raise RuntimeError(f"layers {np.flatnonzero(full).tolist()} fill their record of events: later spikes are missing")
        return {f"d_w{k}": found[f"syn{k}"].T for k in range(2)} | {"counts": counts, "first": first}

    return run


def layer(case: protocol.Case) -> protocol.Pull:
    jax = protocol.jax_of(case)
    jnp, first_spike = jax.numpy, import_module("jaxsnn.event.loss").first_spike
    apply, outputs, spikes = _network(case), len(case["w1"]), _input(case, jax.numpy)

    @jax.jit
    def first(w0: Any, w1: Any) -> Any:
        return jax.vmap(first_spike, in_axes=(0, None))(apply({"inp": spikes}, {"syn0": w0.T, "syn1": w1.T})["lif1"], outputs)

    @jax.jit
    def back(w0: Any, w1: Any, cotangent: Any) -> Any:
        def cost(w0: Any, w1: Any) -> Any:
            times = first(w0, w1)
            return jnp.where(jnp.isinf(times), 0.0, cotangent * jnp.where(jnp.isinf(times), 0.0, times)).sum()

        return jax.grad(cost, argnums=(0, 1))(w0, w1)

    def pull(w0: Any, w1: Any, cotangent: Any) -> protocol.Results:
        found = {"first": first(w0, w1)}
        return found if cotangent is None else found | dict(zip(("d_w0", "d_w1"), back(w0, w1, cotangent), strict=True))

    return pull


def _input(case: protocol.Case, jnp: Any) -> Any:
    """jaxsnn's form of the input spikes."""
    time, idx = jnp.asarray(case["time"]), jnp.asarray(case["idx"], dtype=int)
    spike = import_module("jaxsnn.event.types").Spike
    return spike(time=time, idx=idx, current=jnp.zeros_like(time), layer_idx=jnp.zeros_like(idx), internal=idx >= 0)


def _network(case: protocol.Case) -> Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]:
    """Events of every population from input spikes and weights, batched, with EventProp as derivative."""
    modules, topology = import_module("jaxsnn.event.modules"), import_module("jaxsnn.event.topology")
    tau_mem, tau_syn, v_th = (case.number(name) for name in ("tau_mem", "tau_syn", "v_th"))
    builder = topology.Topology(t_max=case.number("t_end"), backprop_method="eventprop")
    builder.add({"inp": modules.Source(case["w0"].shape[1])})
    source, events = "inp", case["events"]
    for k, name in enumerate(LAYERS):
        params = modules.LIFParameters(tau_mem=tau_mem, tau_syn=tau_syn, v_th=v_th)
        layer = modules.LIF(len(case[f"w{k}"]), int(events[k] + events[k + 1]) + SPARE, params)
        if tau_mem not in (tau_syn, 2.0 * tau_syn):
            layer = _by_newton(layer, params)
        builder.add({f"syn{k}": modules.Linear(mean=0.0, std=1.0, min_delay=0.0), name: layer})
        builder.connect([(source, f"syn{k}"), (f"syn{k}", name)])
        source = name
    return builder.done()[1]


def _by_newton(layer: Any, params: Any) -> Any:
    """The same population with jaxsnn's Newton solver for the next spike, whatever the time constants."""
    jax = import_module("jax")
    stepping, solver = import_module("jaxsnn.event.stepping"), import_module("jaxsnn.event.solver").newton_solver
    next_event = import_module("jaxsnn.event.solver.next_finder").next_event
    flow = import_module("jaxsnn.event.functional.lif.dynamics").lif_exponential_flow(params.tau_syn, params.tau_mem)
    jump = import_module("jaxsnn.event.functional.lif.transition").transition
    population = import_module("jaxsnn.event.types").Population

    tau_mem, tau_syn, v_th = (float(value) for value in (params.tau_mem, params.tau_syn, params.v_th))
    scale, rate = tau_syn / (tau_mem - tau_syn), 1.0 / tau_mem - 1.0 / tau_syn

    def above(state: Any, t: Any) -> Any:
        """V(t) - V_th of a neuron that starts from `state`; the decays differ by little at first, hence expm1."""
        rise = state.V - scale * state.I * jax.numpy.expm1(rate * t)
        return jax.numpy.exp(-t / tau_mem) * rise - v_th

    crossing = jax.vmap(partial(solver, above, jax.numpy.zeros_like(params.tau_mem)), in_axes=(0, None))

    def generator(
        sources: list[str], synapses: list[str], delays: dict[str, float], order: Any, t_max: float, *rest: Any
    ) -> Any:
        functions = layer.generator(sources, synapses, delays, order, t_max, *rest)
        functions.step = partial(
            stepping.step,
            partial(stepping.next_input, sources, delays),
            partial(stepping.min_delay_check, [], {}),
            jax.vmap(flow, in_axes=(0, None)),
            [partial(jump, params.v_reset, name) for name in synapses],
            t_max,
            partial(next_event, crossing),
        )
        return functions

    return population(generator, layer.parameters, layer.size, layer.n_steps)


if __name__ == "__main__":
    protocol.serve(["jaxsnn", "jax"], build, layer)
