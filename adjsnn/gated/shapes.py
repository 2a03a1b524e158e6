"""The tensors of a gated network as its equations take them, checked before any loop."""

from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.gated.network import GatedSynapseNetwork, GatedTensors
from adjsnn.shapes import checked, matrix, spread, wrong


def gated_tensors(net: GatedSynapseNetwork) -> GatedTensors:
    """`net.tensors()`, checked. One number as the bias is spread over the neurons, on the tape; one as a time constant or a
    constant of the membrane becomes ().

    Raises:
        ConfigurationError: what is no dense real tensor, is of several dtypes or devices, or has another shape.
    """
    tensors = net.tensors()
    if not isinstance(tensors, GatedTensors):
        raise ConfigurationError(
            f"{type(net).__name__}.tensors() gave {type(tensors).__name__}", "GatedTensors", "super().tensors()"
        )
    n, like = net.n_hidden, checked("w_rec", tensors.w_rec, None)
    if set(tensors.constants) != set(net.neuron.constants):
        raise ConfigurationError(
            f"constants {sorted(tensors.constants)} with {net.neuron!r}", f"{sorted(net.neuron.constants)}", "a new network"
        )
    w_in, w_rec = matrix("w_in", tensors.w_in, like, (n, net.n_in)), matrix("w_rec", tensors.w_rec, like, (n, n))
    w_out = matrix("w_out", tensors.w_out, like, (net.n_out, n))
    bias = spread("bias", tensors.bias, like, n)
    tau_fast, tau_slow = (_constant(name, getattr(tensors, name), like, n) for name in ("tau_fast", "tau_slow"))
    constants = {name: _constant(name, x, like, n) for name, x in tensors.constants.items()}
    return GatedTensors(w_in, w_rec, bias, w_out, tau_fast, tau_slow, constants)


def _constant(name: str, x: object, like: Tensor, n: int) -> Tensor:
    """() or (N,) of a constant."""
    x = checked(name, x, like)
    if x.shape == ():
        return x
    if x.shape == (1,):
        return x.reshape(())
    if x.shape != (n,):
        raise wrong(name, x, f"one number, or ({n},), one per neuron")
    return x
