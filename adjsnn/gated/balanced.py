"""The tightly balanced network: the known solution of predictive coding, the oracle of the library."""

from math import pi

import torch

from adjsnn.checks import Number, positive
from adjsnn.errors import ConfigurationError
from adjsnn.gated.network import GatedSynapseNetwork


def tightly_balanced(net: GatedSynapseNetwork, scale: Number) -> GatedSynapseNetwork:
    """Set the weights of a predictive-coding network to their known solution (docs/equations.md, 1.13), in place.

        W_out,k = a (unit vector k),   W_in = W_outᵀ/a²,   W_rec = -W_in W_out with zero diagonal,   b = 0

    The unit vectors are spread evenly over half the circle: with thresholds ±1 a neuron serves both signs of its direction,
    and two neurons with opposite vectors would always spike together. Each spike corrects the readout by a/τ_s along its
    direction; every neuron's voltage is the remaining error along that direction.

    Args:
        net: a network with two inputs and two readouts.
        scale: a > 0; the number of spikes goes as 1/a.

    Returns:
        the same network.

    Raises:
        ConfigurationError: not two inputs and two readouts, or scale ≤ 0.
    """
    if (net.n_in, net.n_out) != (2, 2):
        raise ConfigurationError(
            f"a network with {net.n_in} inputs and {net.n_out} readouts",
            "two of each",
            "GatedSynapseNetwork(2, n_hidden, 2)",
        )
    scale = positive("scale", scale, "a positive number", "scale=0.1")
    with torch.no_grad():
        angle = pi / net.n_hidden * torch.arange(net.n_hidden, dtype=torch.float64)
        w_out = scale * torch.stack([angle.cos(), angle.sin()])
        w_in = w_out.T / scale**2
        net.w_out.copy_(w_out)
        net.w_in.copy_(w_in)
        net.w_rec.copy_((-w_in @ w_out).fill_diagonal_(0.0))
        net.bias.zero_()
    return net
