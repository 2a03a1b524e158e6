"""A layered LIF network in jaxsnn: one gradient of the first-spike cross-entropy by its event-based EventProp, jitted.

Every layer records a fixed number of events, its input spikes and its own. Here it is the largest number that adjsnn finds in
a sample, and `SPARE` more; where that is too few, spikes would be dropped without a word, so `RuntimeError` is raised.

jaxsnn's `LIF` finds the next spike in closed form, which exists for τ_m = τ_s and τ_m = 2 τ_s; given other time constants it
takes one of these two all the same. Such layers are put together here from jaxsnn's own step, flow, jump and adjoint with its
Newton solver in place of the closed form. That makes six steps and calls a neuron silent where they end more than 1e-6 below
the threshold, so a spike that barely crosses can be missed; and it is slower than the closed form.

Its equations are (2.1) and (2.2), so weights are taken as they are; nothing in it depends on the unit of time, here ms. The
adjoint holds for a reset to zero, no bias, no delays and no refractory time.
"""

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

import adjsnn
from adjsnn import LIFNetwork, SpikeTrains

SPARE = 3  # events, beyond the largest number in a sample
TAU_0, ALPHA, TAU_1 = 0.5, 0.003, 6.4  # of the first-spike cross-entropy, ms, the defaults of adjsnn's


def jaxsnn(lif: LIFNetwork, x: SpikeTrains, labels: Tensor, t_end: float) -> Callable[[], tuple[float, list[Tensor]]]:
    """A function that takes one gradient and returns the number of output spikes and the gradient of every `w_in`.

    It computes in the dtype of the weights, on the CPU, by as many threads as torch has now, unless jax has already started.
    """
    os.environ.setdefault("NPROC", str(torch.get_num_threads()))  # read by XLA as it starts
    jax = import_module("jax")
    first_spike = import_module("jaxsnn.event.loss").first_spike
    cpu, double = jax.devices("cpu")[0], lif.w_in[0].dtype == torch.float64
    layers = [f"lif{k}" for k in range(len(lif.layers))]

    with jax.enable_x64(double), jax.default_device(cpu):
        numpy = jax.numpy
        apply = _network(lif, _steps(lif, x, t_end), t_end)
        weights = {f"syn{k}": numpy.asarray(w.detach().numpy().T) for k, w in enumerate(lif.w_in)}
        spikes, classes = _input(x, weights["syn0"].dtype), numpy.asarray(labels.numpy())

    def loss(weights: dict[str, Any]) -> tuple[Any, tuple[Any, Any]]:
        events = apply({"inp": spikes}, weights)
        first = jax.vmap(first_spike, in_axes=(0, None))(events[layers[-1]], lif.layers[-1])
        time = numpy.where(numpy.isinf(first), t_end, first)
        right = numpy.take_along_axis(time, classes[:, None], 1)[:, 0]
        each = right / TAU_0 + jax.nn.logsumexp(-time / TAU_0, axis=1) + ALPHA * numpy.expm1(right / TAU_1)
        full = numpy.stack([(events[name].idx[:, -1] >= 0).any() for name in layers])
        return each.mean(), (events[layers[-1]].internal.sum(), full)

    derivative = jax.jit(jax.grad(loss, has_aux=True))

    def gradient() -> tuple[float, list[Tensor]]:
        with jax.enable_x64(double), jax.default_device(cpu):
            found, (count, full) = jax.block_until_ready(derivative(weights))
        if full.any():
            raise RuntimeError(f"layers {np.flatnonzero(full).tolist()} fill their record of events: later spikes are missing")
        return float(count), [torch.from_numpy(np.array(found[f"syn{k}"]).T) for k in range(len(layers))]

    return gradient


def _steps(lif: LIFNetwork, x: SpikeTrains, t_end: float) -> list[int]:
    """Number of events each layer records."""
    with torch.no_grad():
        sol = adjsnn.solve(lif, x, t_end=t_end)
    counts = [x.counts().sum(1), *(sol.spike_counts(k).sum(1) for k in range(len(lif.layers)))]
    return [int((a + b).max()) + SPARE for a, b in pairwise(counts)]


def _input(x: SpikeTrains, dtype: Any) -> Any:
    """jaxsnn's form of the input spikes."""
    numpy, spike = import_module("jax.numpy"), import_module("jaxsnn.event.types").Spike
    time, idx = numpy.asarray(x.time.numpy(), dtype=dtype), numpy.asarray(x.idx.numpy(), dtype=int)
    return spike(time=time, idx=idx, current=numpy.zeros_like(time), layer_idx=numpy.zeros_like(idx), internal=idx >= 0)


def _network(lif: LIFNetwork, steps: list[int], t_end: float) -> Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]:
    """Events of every population from input spikes and weights, batched, with EventProp as derivative."""
    modules, topology = import_module("jaxsnn.event.modules"), import_module("jaxsnn.event.topology")
    builder = topology.Topology(t_max=t_end, backprop_method="eventprop")
    builder.add({"inp": modules.Source(lif.n_in)})
    source = "inp"
    for k, (size, events) in enumerate(zip(lif.layers, steps, strict=True)):
        tau_mem, tau_syn, v_th = (float(values[k][0]) for values in (lif.tau_mem, lif.tau_syn, lif.v_th))
        params = modules.LIFParameters(tau_mem=tau_mem, tau_syn=tau_syn, v_th=v_th)
        layer = modules.LIF(size, events, params)
        if tau_mem not in (tau_syn, 2.0 * tau_syn):
            layer = _by_newton(layer, params)
        builder.add({f"syn{k}": modules.Linear(mean=0.0, std=1.0, min_delay=0.0), f"lif{k}": layer})
        builder.connect([(source, f"syn{k}"), (f"syn{k}", f"lif{k}")])
        source = f"lif{k}"
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
