"""Weights that make a network spike, found on data: a start for training, since a network that is silent has no gradient."""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adjsnn.checks import Number, number
from adjsnn.errors import ConfigurationError, EventError, IntegrationError, StepTooLongWarning
from adjsnn.gated.network import GatedSynapseNetwork
from adjsnn.lif.network import LIFNetwork
from adjsnn.reparametrized import stale
from adjsnn.solve import solve
from adjsnn.spikes import SpikeTrains

DOUBLINGS = 20  # most factors of 2 by which weights are scaled, up or down
CLOSE = 1.001  # ratio of two scales that count as one
SHARE = 0.5
Target = Number | Sequence[float]


class Activity(NamedTuple):
    """What a layer does in answer to a batch.

    Attributes:
        share: of the (sample, neuron) pairs, those with a spike.
        rate: spikes/s per neuron.
        spikes: of each neuron, to feed the layer above; None where there is none.
    """

    share: float
    rate: float
    spikes: SpikeTrains | None = None


RUNAWAY = Activity(math.inf, math.inf)


@dataclass(frozen=True)
class Start:
    """What `start_from_data` did; `print` it.

    Attributes:
        scales: by what the input weights of each layer were multiplied.
        before: (share, rate) of each layer, fed as it is now, with the weights as they were.
        share: of (sample, neuron) pairs of each layer, those that spike now.
        rate: spikes/s per neuron of each layer now.
    """

    scales: tuple[float, ...]
    before: tuple[tuple[float, float], ...]
    share: tuple[float, ...]
    rate: tuple[float, ...]

    def __str__(self) -> str:
        rows = zip(self.scales, self.before, self.share, self.rate, strict=True)
        return "\n".join(
            f"layer {k}: input weights × {scale:.4g}; {_percent(was[0])} of neurons spiked in a sample, now {_percent(share)}; "
            f"{was[1]:.3g} spikes/s per neuron, now {rate:.3g}"
            for k, (scale, was, share, rate) in enumerate(rows)
        )


def start_from_data(
    net: LIFNetwork | GatedSynapseNetwork,
    x: SpikeTrains | Tensor,
    *,
    share: Target | None = None,
    rate: Target | None = None,
    **options: Any,
) -> Start:
    """Scale input weights until each layer spikes in answer to data; in place, and without random numbers.

    Layer by layer, from the first: all weights into a layer from below are multiplied by one number, the smallest (to 0.1 %)
    with which it reaches what is asked for. Signs and ratios of weights stay, and so do recurrent weights, biases and all
    other parameters; the layer's own recurrence is in what it answers. A gated network is one layer.

    Do it before the first step, with one batch as those of training. It is a remedy for a start without spikes and no part of
    any gradient.

    Args:
        net: a LIFNetwork of any layers, or a GatedSynapseNetwork, whose `w_in` is scaled.
        x: a batch of inputs, as `adjsnn.solve` takes them.
        share: of the (sample, neuron) pairs of a layer, those that are to spike at least once, above 0 and up to 1; one number
            or one for each layer. Default ½ if there is no `rate`.
        rate: spikes/s per neuron, the mean over samples, in place of `share`; likewise.
        options: of `adjsnn.solve`, such as t_end and dt.

    Returns:
        a Start: scales, and what each layer did before and does now. `print` tells it in words.

    Raises:
        ConfigurationError: both of share and rate, or numbers that cannot be; a layer that receives no spikes; one that
            cannot be brought there by scaling, with what it reaches; weights that cannot be set, such as parametrized ones.
    """
    if not isinstance(net, (LIFNetwork, GatedSynapseNetwork)):
        raise ConfigurationError(
            f"a network of type {type(net).__name__}", "a LIFNetwork or a GatedSynapseNetwork", "parameters of its own by hand"
        )
    kind, wanted = _wanted(net, share, rate)
    _check_weights(net)
    for name in ("ts", "adjoint", "y0"):
        if name in options:
            raise ConfigurationError(f"{name} of start_from_data", "options that say what a layer does", f"no {name}")
    scales, before, found = list[float](), list[Activity](), list[Activity]()
    started = [w.detach().clone() for w in _weights(net)]
    try:
        with torch.no_grad():
            fed: Any = x.detach() if isinstance(x, Tensor) else x
            for k, target in enumerate(wanted):
                answer, write = _layer(net, k, fed, options if k == 0 else _later(options, x))
                scale, was, now = _scaled(answer, kind, target, f"layer {k}", fed)
                write(scale)
                scales.append(scale)
                before.append(was)
                found.append(now)
                fed = now.spikes
    except BaseException:  # all layers or none
        with torch.no_grad():
            for w, old in zip(_weights(net), started, strict=True):
                w.copy_(old)
        raise
    told = tuple((a.share, a.rate) for a in before)
    return Start(tuple(scales), told, tuple(a.share for a in found), tuple(a.rate for a in found))


def _wanted(net: nn.Module, share: Target | None, rate: Target | None) -> tuple[str, list[float]]:
    """Which figure is asked for, and what of each layer."""
    if share is not None and rate is not None:
        raise ConfigurationError(f"share={share!r} and rate={rate!r}", "one of them", f"share={share!r}")
    kind, given = ("share", SHARE if share is None else share) if rate is None else ("rate", rate)
    layers = len(net.layers) if isinstance(net, LIFNetwork) else 1
    several = list(given) if isinstance(given, (list, tuple)) or getattr(given, "ndim", 0) == 1 else [given] * layers  # type: ignore[arg-type]
    if len(several) != layers:
        raise ConfigurationError(f"{kind} of {len(several)} layers", f"one number, or one for each of {layers}", f"{kind}=0.5")
    top = 1.0 if kind == "share" else math.inf
    expected = "above 0 and up to 1" if kind == "share" else "spikes/s above 0"
    plain = [number(kind, x, expected, f"{kind}={'0.5' if kind == 'share' else '20.0'}") for x in several]
    for x in plain:
        if not 0.0 < x <= top:
            raise ConfigurationError(f"{kind}={x:g}", expected, f"{kind}={'0.5' if kind == 'share' else '20.0'}")
    return kind, plain


def _weights(net: LIFNetwork | GatedSynapseNetwork) -> list[Tensor]:
    return list(net.w_in) if isinstance(net, LIFNetwork) else [net.w_in]


def _check_weights(net: LIFNetwork | GatedSynapseNetwork) -> None:
    """Refuse input weights that are not Parameters of their own."""
    owner: nn.Module = net.w_in if isinstance(net, LIFNetwork) else net
    names = [str(k) for k in range(len(net.layers))] if isinstance(net, LIFNetwork) else ["w_in"]
    wrong = [name for name in names if parametrize.is_parametrized(owner, name)]
    wrong += [f"{k}" for k, w in enumerate(_weights(net)) if not isinstance(w, nn.Parameter)]
    if wrong or stale(net) is not None:
        raise ConfigurationError(
            f"input weights of {type(net).__name__} that are computed from other parameters",
            "plain Parameters, which can be scaled",
            "start_from_data before parametrizing or pruning them",
        )


def _later(options: dict[str, Any], x: SpikeTrains | Tensor) -> dict[str, Any]:
    """Options of a layer that is fed by spikes of the layer below, over the same trial."""
    kept = {name: value for name, value in options.items() if name not in ("currents", "dt")}
    if "t_end" not in kept and ("currents" in options or isinstance(x, Tensor)):
        driving = x if isinstance(x, Tensor) else options["currents"]
        kept["t_end"] = len(driving) * float(options["dt"])
    return kept


def _layer(
    net: Any, k: int, fed: Any, options: dict[str, Any]
) -> tuple[Callable[[float], Activity], Callable[[float], object]]:
    """What layer k does at a scale of its input weights, without touching the network, and the scaling itself."""
    part = copy.deepcopy(net)
    if isinstance(net, LIFNetwork):
        part = _alone(part, k)
        own, other = net.w_in[k], part.w_in[0]
    else:
        own, other = net.w_in, part.w_in
    start = own.detach().clone()

    def answer(scale: float) -> Activity:
        other.copy_(start * scale)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", StepTooLongWarning)
                sol = solve(part, fed, **options)
        except (EventError, IntegrationError):  # fires without bound, or diverges
            return RUNAWAY
        counts = sol.layer_counts(-1)
        rate = 1000.0 * float(counts.double().mean()) / sol.t_end if sol.t_end > 0.0 else 0.0
        spikes = sol.layer_spikes[-1] if isinstance(net, LIFNetwork) and k + 1 < len(net.layers) else None
        return Activity(float((counts > 0).double().mean()), rate, spikes)

    return answer, lambda scale: own.copy_(start * scale)


def _alone(net: LIFNetwork, k: int) -> LIFNetwork:
    """One layer of a network as a LIFNetwork of its own."""
    alone = LIFNetwork.__new__(LIFNetwork)
    nn.Module.__init__(alone)
    alone.n_in, alone.layers, alone.n_out, alone.w_out = net.fan_in[k], net.layers[k : k + 1], None, None  # type: ignore[assignment]
    alone.structure, alone.recurrent = net.structure[k : k + 1], net.recurrent[k : k + 1]
    for name, x in net.tensors()[k]._asdict().items():
        setattr(alone, name, nn.ParameterList([None if x is None else nn.Parameter(x.detach().clone(), requires_grad=False)]))
    return alone


def _scaled(
    answer: Callable[[float], Activity], kind: str, target: float, layer: str, fed: object
) -> tuple[float, Activity, Activity]:
    """The smallest scale that reaches the target, by doubling or halving and then bisection; before and after.

    Raises:
        ConfigurationError: no scale does.
    """

    def enough(found: Activity) -> bool:
        return getattr(found, kind) >= target

    before = now = answer(1.0)
    low = high = 1.0
    if enough(before):
        while enough(found := answer(low / 2.0)):
            low, high, now = low / 2.0, low / 2.0, found
            if low < 2.0**-DOUBLINGS:
                raise ConfigurationError(
                    f"{layer} with a {kind} of {found.share if kind == 'share' else found.rate:.3g} almost without input",
                    f"one whose inputs decide, for a {kind} of {target:g}",
                    "a smaller bias, or weaker recurrent weights",
                )
        low /= 2.0
    while not enough(now):
        if high >= 2.0**DOUBLINGS:
            raise _unreached(layer, kind, target, now, fed)
        low, high = high, 2.0 * high
        now = answer(high)
    while high > CLOSE * low:
        middle = math.sqrt(low * high)
        found = answer(middle)
        low, high, now = (low, middle, found) if enough(found) else (middle, high, now)
    if now.share == math.inf:
        raise ConfigurationError(
            f"{layer}, which fires without bound before it reaches a {kind} of {target:g}",
            "a layer that its inputs drive",
            f"a smaller {kind}, weaker recurrent weights, or a refractory time",
        )
    return high, before, now


def _unreached(layer: str, kind: str, target: float, found: Activity, fed: object) -> ConfigurationError:
    silent = not len(fed) if isinstance(fed, SpikeTrains) else not bool((fed != 0.0).any()) if isinstance(fed, Tensor) else True
    if silent:
        return ConfigurationError(
            f"{layer}, which receives no spikes and no currents", "inputs to scale weights by", "a batch with spikes, or a bias"
        )
    reached = f"{_percent(found.share)} of neurons in a sample" if kind == "share" else f"{found.rate:.3g} spikes/s per neuron"
    return ConfigurationError(
        f"{layer} at {2**DOUBLINGS} times its input weights: {reached}, not a {kind} of {target:g}",
        "weights and inputs that can raise neurons to their threshold",
        f"a smaller {kind}, fewer negative weights, inputs that more samples share, or a longer t_end",
    )


def _percent(share: float) -> str:
    return "all" if share == math.inf else f"{100.0 * share:.3g} %"
