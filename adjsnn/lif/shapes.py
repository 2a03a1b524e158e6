"""The tensors of a LIF network as its equations take them, checked before any loop."""

from collections.abc import Sequence

from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.lif.network import LIFLayer, LIFNetwork
from adjsnn.shapes import ONE, checked, matrix, spread, wrong


def lif_layers(net: LIFNetwork) -> list[LIFLayer]:
    """`net.tensors()`, checked. One number per layer as a constant or a delay is spread over neurons or axons, on the tape.

    Raises:
        ConfigurationError: what is no dense real tensor, is of several dtypes or devices, or has another shape.
    """
    layers = net.tensors()
    if (
        not isinstance(layers, Sequence)
        or len(layers) != len(net.layers)
        or not all(isinstance(layer, LIFLayer) for layer in layers)
    ):
        raise ConfigurationError(
            f"{type(net).__name__}.tensors() gave {type(layers).__name__}",
            f"a list of {len(net.layers)} LIFLayer",
            "super().tensors()",
        )
    like = checked("w_in[0]", layers[0].w_in, None)
    return [
        _lif_layer(k, layer, like, n, m) for k, (layer, n, m) in enumerate(zip(layers, net.layers, net.fan_in, strict=True))
    ]


def _lif_layer(k: int, row: LIFLayer, like: Tensor, n: int, m: int) -> LIFLayer:
    w_in = matrix(f"w_in[{k}]", row.w_in, like, (n, m))
    w_rec = None if row.w_rec is None else matrix(f"w_rec[{k}]", row.w_rec, like, (n, n))
    per_neuron = [spread(f"{name}[{k}]", x, like, n) for name, x in zip(row._fields[2:8], row[2:8], strict=True)]
    delays = [_delays(f"delays[{k}]", row.delays, like, n, m), _delays(f"rec_delays[{k}]", row.rec_delays, like, n, n)]
    return LIFLayer._make([w_in, w_rec, *per_neuron, *delays])


def _delays(name: str, x: object, like: Tensor, n: int, m: int) -> Tensor | None:
    """(M,) or (N, M) of delays per axon, per synapse or one for all; None where there are none."""
    if x is None:
        return None
    x = checked(name, x, like)
    if x.shape in ((m,), (n, m)):
        return x
    if x.shape not in ONE:
        raise wrong(name, x, f"({m},) per axon, ({n}, {m}) per synapse, or one number")
    return x.expand(m)
