"""The tensors of a LIF network as its equations take them, checked before any loop."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.lif.network import COMPONENTS, FOLLOWING, LIFNetwork
from adjsnn.lif.structure import LIFLayer, Structure, check_put_here
from adjsnn.lif.synapses import Synapses
from adjsnn.shapes import ONE, checked, matrix, spread, wrong

TRIGGERED = slice(LIFLayer._fields.index(COMPONENTS[0]), LIFLayer._fields.index(COMPONENTS[-1]) + 1)


def lif_layers(net: LIFNetwork) -> list[LIFLayer]:
    """`net.tensors()`, checked. One number per layer as a constant or a delay is spread over neurons or axons, on the tape.

    Raises:
        ConfigurationError: what is no dense real tensor, is of several dtypes or devices, or has another shape; the state of
            another network, put here by `torch.func.functional_call`.
    """
    check_put_here(net)
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
        _lif_layer(k, layer, like, n, m, own)
        for k, (layer, n, m, own) in enumerate(zip(layers, net.layers, net.fan_in, net.structure, strict=True))
    ]


def _lif_layer(k: int, row: LIFLayer, like: Tensor, n: int, m: int, own: Structure) -> LIFLayer:
    for name, listed, sources in (("synapses", own.synapses, m), ("rec_synapses", own.rec_synapses, n)):
        if listed is not None:  # whose tensors may have changed in place since it was built
            listed.check(f"{name}[{k}]", sources, n, own.currents)
    receptors = () if own.receptors is None else (own.receptors,)
    w_in = _weights(f"w_in[{k}]", row.w_in, like, (*receptors, n, m), own.synapses)
    w_rec = None if row.w_rec is None else _weights(f"w_rec[{k}]", row.w_rec, like, (*receptors, n, n), own.rec_synapses)
    per_neuron: dict[str, Any] = {
        name: spread(f"{name}[{k}]", getattr(row, name), like, n) for name in row._fields[2:8] if name != "tau_syn"
    }
    name = f"tau_syn[{k}]"
    tau_syn = _rows(name, row.tau_syn, like, own.currents, n) if receptors else spread(name, row.tau_syn, like, n)
    delays = {
        "delays": _delays(f"delays[{k}]", row.delays, like, n, m, own.synapses),
        "rec_delays": _delays(f"rec_delays[{k}]", row.rec_delays, like, n, n, own.rec_synapses),
    }
    rest: dict[str, Any] = {**per_neuron, **delays, **_triggered(k, row, like, n), **_following(k, row, like, n)}
    return LIFLayer(w_in=w_in, w_rec=w_rec, tau_syn=tau_syn, **rest)


def _weights(name: str, x: object, like: Tensor, shape: tuple[int, ...], synapses: Synapses | None) -> Tensor:
    if synapses is None and len(shape) == 2:
        return matrix(name, x, like, shape)
    x = checked(name, x, like)
    wanted = shape if synapses is None else (synapses.weights,)
    if x.shape != wanted:
        expected = "(receptors, out, in)" if synapses is None else "one for each weight of the list of synapses"
        raise wrong(name, x, f"{wanted}, {expected}")
    return x


def _triggered(k: int, row: LIFLayer, like: Tensor, n: int) -> dict[str, Tensor | None]:
    """What spikes trigger, (J, N) or (H, N) each."""
    if all(x is None for x in row[TRIGGERED]):
        return {}
    given = {name: getattr(row, name) for name in COMPONENTS}
    for tau, jump, scale in (COMPONENTS[:3], COMPONENTS[3:]):
        if (given[tau] is None) != (given[jump] is None) or (given[tau] is None and given[scale] is not None):
            there = [name for name in (tau, jump, scale) if given[name] is not None]
            raise ConfigurationError(f"{there[0]}[{k}] without its like", f"{tau} and {jump}, or none of them", "both")
        if given[tau] is not None:
            rows = len(checked(f"{tau}[{k}]", given[tau], like)) if given[tau].dim() else 1
            for name in (tau, jump, scale):
                given[name] = None if given[name] is None else _rows(f"{name}[{k}]", given[name], like, rows, n)
    return given


def _following(k: int, row: LIFLayer, like: Tensor, n: int) -> dict[str, Tensor | None]:
    """What follows the voltage, (N,) each."""
    if row.tau_follow is None and row.gain_follow is None:
        return {}
    given = {name: getattr(row, name) for name in FOLLOWING}
    there = [name for name, x in given.items() if x is not None]
    if len(there) == 1:
        raise ConfigurationError(f"{there[0]}[{k}] without its like", "tau_follow and gain_follow, or none of them", "both")
    return {name: spread(f"{name}[{k}]", given[name], like, n) if there else None for name in FOLLOWING}


def _rows(name: str, x: object, like: Tensor, rows: int, n: int) -> Tensor:
    """(C, N) of C components, of numbers for each of them, or one for all."""
    x = checked(name, x, like)
    if x.shape in ONE:
        return x.expand(rows, n)
    if x.shape not in ((rows, n), (rows, 1)):
        raise wrong(name, x, f"({rows}, {n}), one number per component and neuron, or one number for all")
    return x.expand(rows, n)


def _delays(name: str, x: object, like: Tensor, n: int, m: int, synapses: Synapses | None) -> Tensor | None:
    """(M,) or (N, M) of delays per axon, per synapse or one for all, (E,) or one of a list; None where there are none."""
    if x is None:
        return None
    x = checked(name, x, like)
    if synapses is not None:
        if x.shape not in (*ONE, (len(synapses),)):
            raise wrong(name, x, f"({len(synapses)},) of the list of synapses, or one number")
        return x
    if x.shape in ((m,), (n, m)):
        return x
    if x.shape not in ONE:
        raise wrong(name, x, f"({m},) per axon, ({n}, {m}) per synapse, or one number")
    return x.expand(m)
