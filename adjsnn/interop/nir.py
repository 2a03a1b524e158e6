"""LIF networks to and from NIR, the Neuromorphic Intermediate Representation (Pedersen et al. 2024), equations (7.1)-(7.5)."""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch

from adjsnn.checks import Number
from adjsnn.errors import MissingPackageError
from adjsnn.lif.network import LIFNetwork

if TYPE_CHECKING:
    import nir


def to_nir(
    net: LIFNetwork,
    *,
    target: str = "equation",
    spike: str | None = None,
    dt: Number | None = None,
    inputs: str = "spikes",
) -> "nir.NIRGraph":
    """A LIF network as a graph of NIR; `nir.write(path, graph)` writes it.

    NIR leaves open what a spike in τ İ = -I + w_in S is, and programs that read it differ. By the equation with a spike that is
    said, or in the way of a program with its step, the graph gives every spike the effect that it has here. What the graph
    does not show, and the unit of time (s), is in `graph.metadata["adjsnn"]`.

    Args:
        net: layers of LIF neurons, recurrent or not, with or without leak, delays per axon and a filtered readout; or a
            LIFConv2d.
        target: "equation", or the program that is to read the graph: "norse", "snntorch", "spikingjelly", "rockpool".
        spike: "impulse", an area of 1 s, the default; "sample", 1 for one step dt, that of all programs; "jump", what raises I
            by w_in.
        dt: step of "sample", ms.
        inputs: "spikes", or "currents" for a network that is solved with `solve(net, u, dt=...)`: its first layer is a node
            without synapse.

    Returns:
        a nir.NIRGraph: Input, Delay, Linear or Affine, CubaLIF (without leak LI and IF), LI for the readout, Output. A last
        layer of threshold 1e30 is a CubaLI. Maps are Conv2d, or SumPool2d and Scale, and a Flatten before dense layers.

    Raises:
        ConfigurationError: what NIR cannot say (refractory times, receptors, spike-triggered currents, moving thresholds,
            resets by a distance, lists of synapses, delays per synapse, a bias without leak, recurrent maps, or neurons of a
            map that scale its weights unlike one another), or what the target would drop, of maps any.
        MissingPackageError: nir is not installed.
    """
    return _networks().written(net, target, spike, dt, inputs)


def from_nir(
    graph: "nir.NIRGraph | str | PathLike[str]",
    *,
    spike: str | None = None,
    dt: Number | None = None,
    inputs: str | None = None,
    affine_bias: str | None = None,
    learn: Sequence[str] = ("weights",),
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LIFNetwork:
    """The LIF network that a graph of NIR says.

    Nodes are taken by their edges, in any order, subgraphs opened, linear nodes in a row multiplied out. v starts at 0,
    whatever v_leak is. A graph that was written by `to_nir` needs no argument and gives the same network to the bit.

    Args:
        graph: a nir.NIRGraph, or the path of a file of one.
        spike: what a spike is, as in `to_nir`: a graph does not say it. Default what its metadata say.
        dt: step of "sample", ms; of norse, snnTorch, SpikingJelly and Rockpool the step they run with.
        inputs: "spikes" or "currents"; default what the metadata say, or "spikes".
        affine_bias: "steady" takes what biases of Affine nodes bring to a synapse as it is in the long run, r w_in times the
            bias, from the start; without it they are refused. As currents they are exact.
        learn: what requires a gradient, as of LIFNetwork.
        dtype: of the parameters; default what the metadata say, or torch's.
        device: of the parameters.

    Returns:
        a LIFNetwork, of an Input (C, H, W) a LIFConv2d. An LI node behind the last layer is its readout, a CubaLI a layer of
        threshold 1e30, read by `sol.v`. Pooling without neurons of its own is multiplied into the convolution or the dense
        layer behind it.

    Raises:
        ConfigurationError: a file that cannot be read, a node or wiring that a LIFNetwork has not (spikes without a synapse,
            other ways than layer by layer, dilation, groups, padded pooling, maps in a row without neurons), several inputs,
            shapes that disagree, numbers that are not finite, or a spike of which nothing is said.
        MissingPackageError: nir is not installed.
    """
    return _networks().read(graph, spike, dt, inputs, affine_bias, learn=learn, dtype=dtype, device=device)


def _networks() -> Any:
    """What needs the package."""
    try:
        from adjsnn.interop import nir_networks  # noqa: PLC0415  loads nir
    except ImportError as error:
        raise MissingPackageError(error.name, "nir") from error
    return nir_networks
