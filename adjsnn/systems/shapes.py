"""The tensors of a network as its equations take them: kind, dtype, device and shape of each, checked before any loop.

A parameter may be replaced after construction, parametrized, or returned by an overridden `tensors`, so that nothing is known
of it. The compiled loops index by the sizes of the network and would read beyond a shorter array.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.systems.gated_network import GatedSynapseNetwork, GatedTensors
from adjsnn.systems.lif_network import LIFLayer, LIFNetwork

REAL = (torch.float32, torch.float64)
ONE = ((), (1,))  # one number, for all


def gated_tensors(net: GatedSynapseNetwork) -> GatedTensors:
    """`net.tensors()`, checked. One number as the bias is spread over the neurons, on the tape; one as a time constant or a
    constant of the membrane becomes ().

    Raises:
        ConfigurationError: what is no dense real tensor, is of several dtypes or devices, or has another shape.
    """
    found = net.tensors()
    if not isinstance(found, GatedTensors):
        raise ConfigurationError(
            f"{type(net).__name__}.tensors() gave {type(found).__name__}", "GatedTensors", "super().tensors()"
        )
    n, like = net.n_hidden, checked("w_rec", found.w_rec, None)
    if set(found.constants) != set(net.neuron.constants):
        raise ConfigurationError(
            f"constants {sorted(found.constants)} with {net.neuron!r}", f"{sorted(net.neuron.constants)}", "a new network"
        )
    w_in, w_rec = _matrix("w_in", found.w_in, like, (n, net.n_in)), _matrix("w_rec", found.w_rec, like, (n, n))
    w_out = _matrix("w_out", found.w_out, like, (net.n_out, n))
    bias = spread("bias", found.bias, like, n)
    tau_fast, tau_slow = (_constant(name, getattr(found, name), like, n) for name in ("tau_fast", "tau_slow"))
    constants = {name: _constant(name, x, like, n) for name, x in found.constants.items()}
    return GatedTensors(w_in, w_rec, bias, w_out, tau_fast, tau_slow, constants)


def lif_layers(net: LIFNetwork) -> list[LIFLayer]:
    """`net.tensors()`, checked. One number per layer as a constant or a delay is spread over neurons or axons, on the tape.

    Raises:
        ConfigurationError: what is no dense real tensor, is of several dtypes or devices, or has another shape.
    """
    rows = net.tensors()
    if not isinstance(rows, Sequence) or len(rows) != len(net.layers) or not all(isinstance(row, LIFLayer) for row in rows):
        raise ConfigurationError(
            f"{type(net).__name__}.tensors() gave {type(rows).__name__}",
            f"a list of {len(net.layers)} LIFLayer",
            "super().tensors()",
        )
    like = checked("w_in[0]", rows[0].w_in, None)
    return [_lif_layer(k, row, like, n, m) for k, (row, n, m) in enumerate(zip(rows, net.layers, net.fan_in, strict=True))]


def _lif_layer(k: int, row: LIFLayer, like: Tensor, n: int, m: int) -> LIFLayer:
    w_in = _matrix(f"w_in[{k}]", row.w_in, like, (n, m))
    w_rec = None if row.w_rec is None else _matrix(f"w_rec[{k}]", row.w_rec, like, (n, n))
    per_neuron = [spread(f"{name}[{k}]", x, like, n) for name, x in zip(row._fields[2:8], row[2:8], strict=True)]
    delays = [_delays(f"delays[{k}]", row.delays, like, n, m), _delays(f"rec_delays[{k}]", row.rec_delays, like, n, n)]
    return LIFLayer._make([w_in, w_rec, *per_neuron, *delays])


def checked(name: str, x: object, like: Tensor | None) -> Tensor:
    """x, once it is a dense real tensor on a device that holds numbers, of the dtype and device of `like`."""
    if not isinstance(x, Tensor):
        raise ConfigurationError(f"{name} is {type(x).__name__}", "a tensor", "a torch.nn.Parameter there")
    if like is not None and x.dtype == like.dtype and x.device == like.device and x.layout == torch.strided:
        return x
    if x.layout != torch.strided:
        raise ConfigurationError(f"{name} of layout {x.layout}", "a dense tensor", f"{name}.to_dense()")
    if x.device.type == "meta":
        raise ConfigurationError(
            f"{name} on the device meta, which holds no numbers",
            "a CPU or CUDA tensor",
            'net.to_empty(device="cpu"), then values',
        )
    if x.dtype not in REAL:
        raise ConfigurationError(f"{name} is {x.dtype}", "torch.float32 or torch.float64", "net.float() or net.double()")
    if like is not None:
        raise ConfigurationError(
            f"{name} is {x.dtype} on {x.device} while the weights are {like.dtype} on {like.device}",
            "one dtype and device for the whole network",
            "net.to(dtype) or net.to(device)",
        )
    return x


def spread(name: str, x: object, like: Tensor, n: int) -> Tensor:
    """(N,) of a constant per neuron, or of one for all of them."""
    x = checked(name, x, like)
    if x.shape == (n,):
        return x
    if x.shape not in ONE:
        raise _wrong(name, x, f"({n},), one number per neuron, or one number for all")
    return x.expand(n)


def _constant(name: str, x: object, like: Tensor, n: int) -> Tensor:
    """() or (N,) of a constant."""
    x = checked(name, x, like)
    if x.shape == ():
        return x
    if x.shape == (1,):
        return x.reshape(())
    if x.shape != (n,):
        raise _wrong(name, x, f"one number, or ({n},), one per neuron")
    return x


def _delays(name: str, x: object, like: Tensor, n: int, m: int) -> Tensor | None:
    """(M,) or (N, M) of delays per axon, per synapse or one for all; None where there are none."""
    if x is None:
        return None
    x = checked(name, x, like)
    if x.shape in ((m,), (n, m)):
        return x
    if x.shape not in ONE:
        raise _wrong(name, x, f"({m},) per axon, ({n}, {m}) per synapse, or one number")
    return x.expand(m)


def _matrix(name: str, x: object, like: Tensor, shape: tuple[int, int]) -> Tensor:
    x = checked(name, x, like)
    if x.shape != shape:
        raise _wrong(name, x, f"{shape}, (out, in)")
    return x


def _wrong(name: str, x: Tensor, expected: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} of shape {tuple(x.shape)}", f"shape {expected}", "a parameter of that shape, or a network of other sizes"
    )
