"""The weights at which a neuron of a LIF network begins to fire, bracketed from both sides."""

import copy
from typing import Any, NamedTuple

import torch

from adjsnn.checks import Count, Number, count, positive
from adjsnn.errors import ConfigurationError
from adjsnn.lif.network import LIFNetwork
from adjsnn.solve import solve
from adjsnn.spikes import SpikeTrains

LARGEST = 2.0**60  # factor beyond which a neuron counts as one that never fires


class ThresholdBracket(NamedTuple):
    """Two factors on a neuron's input weights: `silent`, at which it does not spike, and `fires`, at which it does."""

    silent: float
    fires: float


def threshold_bracket(
    lif: LIFNetwork, x: SpikeTrains, layer: Count = -1, neuron: Count = 0, *, rtol: Number = 1e-12, **solve_kwargs: Any
) -> ThresholdBracket:
    """Bisect for the factor on all input weights of one neuron at which its first spike appears, in float64.

    Below the bracket the neuron may only be assumed silent, and above it firing, where its voltage grows with the factor, as
    it does for a neuron whose weights are positive, without recurrence. Otherwise the bracket holds one of several changes.

    Args:
        lif: the network; a float64 copy is run.
        x: its input spikes; the neuron fires if it does in any sample.
        layer: of the neuron.
        neuron: its number in the layer.
        rtol: fires/silent - 1 of the result, at most.
        solve_kwargs: passed on to `solve`.

    Raises:
        ConfigurationError: a neuron that is not there, fires whatever its weights, or never does.
    """
    lif = copy.deepcopy(lif).double()
    layer, neuron = count("layer", layer, -len(lif.layers)), count("neuron", neuron, 0)
    rtol = positive("rtol", rtol, "a positive number", "rtol=1e-12")
    if not -len(lif.layers) <= layer < len(lif.layers) or not 0 <= neuron < lif.layers[layer]:
        raise ConfigurationError(f"neuron {neuron} of layer {layer}", f"one of the layers {lif.layers}", "layer=-1, neuron=0")
    x = x.to(dtype=torch.float64)
    x.time = x.time.detach()
    row = lif.w_in[layer].detach()[neuron].clone()

    def fires(factor: float) -> bool:
        with torch.no_grad():
            lif.w_in[layer][neuron] = factor * row
            return bool((solve(lif, x, **solve_kwargs).spike_counts(layer)[:, neuron] > 0).any())

    if fires(0.0):
        raise ConfigurationError(f"neuron {neuron} of layer {layer} fires without input", "a neuron that needs it", "bias=0.0")
    silent, firing = 0.0, 1.0
    while not fires(firing):
        silent, firing = firing, 2.0 * firing
        if firing > LARGEST:
            raise ConfigurationError(
                f"neuron {neuron} of layer {layer}, silent with {silent:g} times its weights",
                "a neuron that its inputs can make fire",
                "positive weights, and inputs that spike before t_end",
            )
    while firing - silent > rtol * silent:
        middle = 0.5 * (silent + firing)
        if fires(middle):
            firing = middle
        else:
            silent = middle
    return ThresholdBracket(silent, firing)
