"""A layer of someone else's, held against the event-exact network of the same parameters and against its own differences."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from adjsnn.checks import Count, Number, count, finite, kind
from adjsnn.errors import ConfigurationError
from adjsnn.gradcheck.probe import STEPS, entries_to_probe, slope_along, unit
from adjsnn.gradcheck.report import NEGLIGIBLE, relative
from adjsnn.gradcheck.verdict import JudgeReport, JudgeRow, by_neuron, spike_errors
from adjsnn.gradcheck.yardstick import compared, valued
from adjsnn.lif.network import LIFNetwork
from adjsnn.solve import solve
from adjsnn.spikes import SpikeTrains

Spikes = SpikeTrains | Tensor
Transform = Callable[[Tensor], Tensor]
PAIRS = 'parameters={"w_in.0": layer.weight}, or {"w_in.0": (layer.weight, transform)}'


class Precision(NamedTuple):
    """How finely a layer can be judged: relative perturbations, what two of them have to agree to, and gradients."""

    steps: tuple[float, ...]
    consistent: float
    tolerance: float


# Layers of others locate spikes by tolerances of their own, which differences see.
FINE = Precision(STEPS, 1e-4, 1e-3)
# In float32 the rounding of a loss is 1e-3 of its change over a step of 1e-4.
COARSE = Precision((1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5), 1e-2, 2e-2)
ROUNDING = 8.0 * torch.finfo(torch.float32).eps  # share of the largest entry by which numbers held twice may differ


class Shared(NamedTuple):
    """A tensor of the layer that holds a parameter of the network.

    Attributes:
        own: the layer's.
        exact: the parameter of a float64 copy of the network.
        values: what the transform makes of `own`, with its graph.
        used: which entries of `own` are in `values`, flat.
    """

    own: Tensor
    exact: Tensor
    values: Tensor
    used: Tensor

    def pulled(self, gradient: Tensor) -> Tensor:
        """A gradient by the network's parameter as one by the layer's tensor, float64 on the CPU, of the entries used."""
        (found,) = torch.autograd.grad(self.values, self.own, gradient.to(self.values), retain_graph=True)
        return self.entries(found)

    def entries(self, gradient: Tensor) -> Tensor:
        """The entries used, flat, float64 on the CPU."""
        return gradient.detach().flatten()[self.used].to("cpu", torch.float64)


@torch.enable_grad()
def judge(
    layer: Callable[[SpikeTrains], Spikes],
    network: LIFNetwork,
    inputs: SpikeTrains,
    loss: Callable[[Any], Tensor],
    *,
    parameters: Mapping[str, Tensor | tuple[Tensor, Transform]],
    t_end: Number | None = None,
    entries: Count = 6,
    seed: Count = 0,
) -> JudgeReport:
    """Hold any torch code from spikes to spikes against the event-exact network of the same parameters, and against itself.

    A gradient that differs from the exact one may be a wrong derivative, or the right one of another program. So it is also
    compared with central differences of the layer itself, where every neuron has as many spikes as before and two steps agree:

    - "exact": it is the gradient of the event-exact network.
    - "another program": it agrees with the layer's differences, and the layer is not that network.
    - "surrogate": the layer's loss does not move at all under small perturbations, as with spikes on a clock.
    - "wrong": it is not the derivative of what the layer computes.
    - "unused": it is zero, and so are the differences.
    - "unjudged": not the exact one, and no entry could be judged by differences.

    Gradients agree within 1e-3 of their norm, 2e-2 where parameters or times are float32. The layer's spikes are matched
    with the exact ones neuron by neuron in order. Its tensors are perturbed in place and put back to the bit.

    Args:
        layer: from input spikes to output spikes: SpikeTrains, or first spike times, (B, N), ms, inf for a silent neuron.
            Called several times, also without gradient; it must answer the same each time.
        network: a LIFNetwork with the same numbers; a float64 copy is solved, with those of the layer to the bit.
        inputs: given to the layer as they are, and to the network in float64.
        loss: a scalar function of what the layer returns; it gets the spikes of the network's last layer in the same form.
        parameters: by the network's name of a parameter, such as "w_in.0", the layer's leaf tensor of the same shape; or that
            and a transform, from which torch finds the network's values, (w, lambda w: w[:, :-1] / scale). Gradients are
            compared by the layer's tensor, without the entries that a transform leaves out.
        t_end: of the network, ms; default inputs.t_max.
        entries: entries probed by differences in each tensor: that of the largest gradient and random others; where it is not
            the exact gradient, also the entry that is furthest from it.
        seed: of the choice of entries.

    Returns:
        JudgeReport.

    Raises:
        ConfigurationError: another network, output of another shape, without gradient, with NaN, or without a spike on either
            side; numbers that are not those of the network; a layer that answers otherwise when asked again; a loss that is no
            finite scalar or has no exact gradient.
    """
    if not callable(layer) or not callable(loss):
        raise ConfigurationError(
            f"layer of type {type(layer).__name__}, loss of type {type(loss).__name__}", "two functions", "an adapter"
        )
    kind("network", network, LIFNetwork)
    kind("inputs", inputs, SpikeTrains)
    entries, seed = count("entries", entries), count("seed", seed, 0)
    net = copy.deepcopy(network).double().requires_grad_(False)
    shared = _shared(net, parameters)
    sol = solve(net, inputs.to(dtype=torch.float64), t_end=t_end)
    shape = tuple(sol.spike_counts().shape)
    spikes = _spikes(layer, inputs, shape)
    exact = sol.first_spike_times() if isinstance(spikes, Tensor) else sol.layer_spikes[-1]
    times = by_neuron(spikes)
    errors = spike_errors(times, by_neuron(exact))
    if not errors.spikes or not errors.exact:
        raise ConfigurationError(
            f"{errors.spikes} output spikes of the layer, {errors.exact} of the exact network", "some of both", "larger weights"
        )
    _answers_again(layer, inputs, shape, times)
    exact_loss, g = _valued("the exact network", exact, loss, {name: x.exact for name, x in shared.items()})
    if not any(bool(x.any()) for x in g.values()):
        raise ConfigurationError("a loss without exact gradient", "one of spike times", "lambda t: t[t.isfinite()].sum()")
    value, r = _valued("the layer", spikes, loss, {name: x.own for name, x in shared.items()})
    moments = spikes if isinstance(spikes, Tensor) else spikes.time
    coarse = any(x.dtype != torch.float64 for x in (moments, *(x.own for x in shared.values())))

    def run() -> tuple[Tensor, Tensor]:
        now = _spikes(layer, inputs, shape)
        return loss(now), by_neuron(now).isfinite().sum(2)

    named = getattr(layer, "__name__", type(layer).__name__)
    pairs = {name: (x.entries(r[name]), x.pulled(g[name])) for name, x in shared.items()}
    for name, (own, _) in pairs.items():
        finite(f"the layer's gradient of {name}", own, "a finite gradient", "a loss of spikes that are there: others are inf")
    floor = NEGLIGIBLE * max(float(x.norm()) for _, x in pairs.values())
    generator, precision = torch.Generator().manual_seed(seed), COARSE if coarse else FINE
    rows = tuple(_row(named, name, x, pairs[name], run, entries, generator, floor, precision) for name, x in shared.items())
    return JudgeReport(rows, errors, named, value, exact_loss, precision.tolerance)


def _row(
    layer: str,
    name: str,
    shared: Shared,
    pair: tuple[Tensor, Tensor],
    run: Callable[[], tuple[Tensor, Tensor]],
    entries: int,
    generator: torch.Generator,
    floor: float,
    precision: Precision,
) -> JudgeRow:
    """One parameter's gradient beside the exact one and the layer's differences."""
    r, g = pair
    size = max(floor, float(r.abs().max()))
    scale = float(shared.own.detach().abs().max()) or 1.0
    places, flat = shared.used.nonzero()[:, 0], shared.own.detach().flatten()
    slopes = dict[int, float]()
    chosen, error = entries_to_probe(r, entries, generator), relative(r, g, floor)
    if error > precision.tolerance:  # where they differ most, a right one of another program and a wrong one part
        chosen = list(dict.fromkeys([*chosen, int((r - g).abs().argmax())]))
    for k in chosen:
        along = unit(flat, int(places[k]))
        steps, consistent = precision.steps, precision.consistent
        slope = slope_along(run, shared.own, along, size, scale=scale, steps=steps, consistent=consistent)
        slopes |= {} if slope is None else {k: slope}
    expected = r.new_tensor(list(slopes.values()))
    differences = relative(r[list(slopes)], expected, size) if slopes else None
    verdict = "exact" if error <= precision.tolerance else "another program" if slopes else "unjudged"
    if differences is not None and not differences <= precision.tolerance:
        verdict = "wrong" if bool(expected.any()) else "surrogate"
    if slopes and not r.any() and not expected.any() and g.any():
        verdict = "unused"
    angle, skipped = vars(compared(layer, name, r, g)), len(chosen) - len(slopes)
    return JudgeRow(**angle, error=error, differences=differences, probed=len(slopes), skipped=skipped, verdict=verdict)


def _shared(net: LIFNetwork, parameters: object) -> dict[str, Shared]:
    """The pairs, after the network's copy has taken the layer's numbers."""
    if not isinstance(parameters, Mapping) or not parameters:
        raise ConfigurationError(f"parameters={parameters!r}", "the layer's tensors by the network's names of them", PAIRS)
    known, shared, seen = dict(net.named_parameters()), dict[str, Shared](), set[int]()
    for name, given in parameters.items():
        if name not in known:
            raise ConfigurationError(f"a parameter {name!r}", f"one of {[*known]}", PAIRS)
        own, transform = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        leaf = isinstance(own, Tensor) and own.is_leaf and own.requires_grad and own.numel() > 0
        if not isinstance(own, Tensor) or not leaf or own.dtype not in (torch.float32, torch.float64) or id(own) in seen:
            raise ConfigurationError(
                f"parameters[{name!r}] of type {type(given).__name__}",
                "a leaf tensor, float32 or float64, that requires a gradient, each of them once; or it and a transform",
                PAIRS,
            )
        if not (transform is None or callable(transform)):
            raise ConfigurationError(f"a transform of type {type(transform).__name__}", "a function", PAIRS)
        seen.add(id(own))
        shared[name] = _pair(name, own, cast(Transform | None, transform), known[name])
    return shared


def _pair(name: str, own: Tensor, transform: Transform | None, exact: Tensor) -> Shared:
    """One tensor and the parameter it holds, which takes its numbers."""
    values = own.view_as(own) if transform is None else transform(own)
    if not isinstance(values, Tensor) or values.shape != exact.shape or not values.requires_grad:
        seen = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"type {type(values).__name__}"
        raise ConfigurationError(f"values of {name} of {seen}", f"a tensor {tuple(exact.shape)} with gradient", PAIRS)
    finite(f"parameters[{name!r}]", values, "finite numbers", PAIRS)
    numbers = values.detach().to(exact)
    off = float((numbers - exact).abs().max())
    if off > ROUNDING * float(exact.abs().max()):
        raise ConfigurationError(
            f"{name} of the layer off by up to {off:.3g} from the network's", "the same numbers", f"copying them into {name}"
        )
    exact.copy_(numbers).requires_grad_()
    weights = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)).to(values) + 0.5
    (found,) = torch.autograd.grad(values, own, weights, retain_graph=True)
    return Shared(own, exact, values, found.flatten() != 0)


def _spikes(layer: Callable[[SpikeTrains], Spikes], inputs: SpikeTrains, shape: tuple[int, ...]) -> Spikes:
    """What the layer answers, checked."""
    found = layer(inputs)
    if isinstance(found, SpikeTrains):
        found.check()
        seen = (found.batch, found.n_neurons)
    else:
        seen = tuple(found.shape) if isinstance(found, Tensor) and found.is_floating_point() else type(found).__name__
    if seen != shape:
        raise ConfigurationError(
            f"output spikes of {seen}", f"SpikeTrains or first spike times of (samples, neurons) {shape}", "another adapter"
        )
    if isinstance(found, Tensor) and not bool((found.detach() >= 0.0).all()):
        raise ConfigurationError("first spike times below 0 or NaN", "times ≥ 0 in ms, inf for silent neurons", "torch.inf")
    return found


def _answers_again(layer: Callable[[SpikeTrains], Spikes], inputs: SpikeTrains, shape: tuple[int, ...], times: Tensor) -> None:
    """Refuse a layer that has a memory or draws random numbers: its differences would be those of something else."""
    with torch.no_grad():
        again = by_neuron(_spikes(layer, inputs, shape))
    if again.shape != times.shape or not torch.allclose(again, times, rtol=1e-5, atol=0.0):
        raise ConfigurationError(
            "a layer that answers otherwise when called again", "the same spikes each time", "resetting its state in each call"
        )


def _valued(
    whose: str, spikes: Spikes, loss: Callable[[Any], Tensor], leaves: Mapping[str, Tensor]
) -> tuple[float, dict[str, Tensor]]:
    """The loss of spikes, and its gradients."""
    if not (spikes if isinstance(spikes, Tensor) else spikes.time).requires_grad:
        raise ConfigurationError(f"spike times of {whose} without gradient", "times that torch differentiates", "no detach()")
    value, gradients = valued(spikes, loss, leaves)
    if not abs(value) < float("inf"):
        raise ConfigurationError(
            f"a loss of {value} of {whose}", "a finite one", "a loss of spikes that are there: others are inf"
        )
    return value, gradients
