"""What the parameters of a LIF network start from: numbers as callers give them, made tensors of each layer, and weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adjsnn.checks import values
from adjsnn.errors import ConfigurationError
from adjsnn.lif.structure import Structure
from adjsnn.lif.synapses import Synapses


def per_layer(name: str, value: object, layers: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """One (N,) tensor per layer from a number, N numbers, or a tuple of these."""
    entries = value if isinstance(value, tuple) else (value,) * len(layers)
    if len(entries) != len(layers):
        raise ConfigurationError(
            f"{name} with {len(entries)} entries", f"one for each of {len(layers)} layers", f"a tuple of {name}"
        )
    tensors = []
    for layer, (entry, n) in enumerate(zip(entries, layers, strict=True)):
        x = values(f"{name} of layer {layer}", entry, dtype, f"a number or {n}", f"{name} of {n}")
        if x.shape not in ((), (1,), (n,)):
            raise ConfigurationError(
                f"{name} of shape {tuple(x.shape)} for layer {layer}", f"a number or {n}", f"{name} of {n}"
            )
        if not bool(x.isfinite().all()):
            raise ConfigurationError(f"{name} of layer {layer} is not finite", "finite numbers", "checking where it comes from")
        tensors.append(x.expand(n).clone())
    return tensors


def delay_times(
    name: str,
    value: Any,
    layers: tuple[int, ...],
    sources: Sequence[int | None],
    dtype: torch.dtype,
    listed: Sequence[Synapses | None],
) -> list[Tensor | None]:
    """One delay tensor per layer, (M,) or (N, M), (E,) of a list of synapses, or None."""
    entries = value if isinstance(value, tuple) else (value,) * len(layers)
    if len(entries) != len(layers):
        raise ConfigurationError(
            f"{name} with {len(entries)} entries", f"one for each of {len(layers)} layers", f"a tuple of {name}"
        )
    tensors: list[Tensor | None] = []
    for layer, (entry, n, m, wired) in enumerate(zip(entries, layers, sources, listed, strict=True)):
        if entry is None or (m is None and not isinstance(value, tuple) and np.ndim(entry) == 0):
            tensors.append(None)
            continue
        if m is None:
            raise ConfigurationError(f"{name} for layer {layer}, which is not recurrent", "None there", "recurrent=True")
        shapes, expected = ((), (m,), (n, m)), f"a number, ({m},) per axon or ({n}, {m}) per synapse"
        if wired is not None:
            shapes, expected = ((), (len(wired),)), f"a number or ({len(wired)},), one for each of the list of synapses"
        x = values(f"{name} of layer {layer}", entry, dtype, expected, f"{name}=1.0")
        if x.shape not in shapes:
            raise ConfigurationError(f"{name} of shape {tuple(x.shape)} for layer {layer}", expected, f"{name}=1.0")
        if not bool((x >= 0.0).all() and x.isfinite().all()):
            raise ConfigurationError(
                f"{name} from {float(x.min()):g} ms in layer {layer}", "finite times ≥ 0 in ms", f"{name}=1.0"
            )
        tensors.append(x.expand(m).clone() if x.dim() == 0 and wired is None else x.clone())
    return tensors


def check_values(start: dict[str, list[Tensor]]) -> None:
    rules: tuple[tuple[str, Callable[[Tensor], Tensor], str, str], ...] = (
        ("tau_mem", lambda x: x > 0.0, "positive times in ms", "tau_mem=20.0"),
        ("tau_syn", lambda x: x > 0.0, "positive times in ms", "tau_syn=5.0"),
        ("refractory", lambda x: x >= 0.0, "times ≥ 0 in ms", "refractory=0.0"),
    )
    for name, rule, expected, remedy in rules:
        for layer, x in enumerate(start[name]):
            if not bool(rule(x).all()):
                raise ConfigurationError(f"{name} of layer {layer} from {float(x.min()):g}", expected, remedy)
    for layer, (reset, threshold) in enumerate(zip(start["v_reset"], start["v_th"], strict=True)):
        if not bool((reset < threshold).all()):
            raise ConfigurationError(
                f"v_reset up to {float(reset.max()):g} with v_th from {float(threshold.min()):g} in layer {layer}",
                "a reset below the threshold",
                "v_reset=0.0, v_th=1.0",
            )


def time_constants(value: object, layers: tuple[int, ...], dtype: torch.dtype, structure: Sequence[Structure]) -> list[Tensor]:
    """τ_s of each layer, (N,), or (K, N) of layers with receptors."""
    entries = value if isinstance(value, tuple) else (value,) * len(layers)
    if len(entries) != len(layers):
        raise ConfigurationError(
            f"tau_syn with {len(entries)} entries", f"one for each of {len(layers)} layers", "a tuple of tau_syn"
        )
    tensors: list[Tensor] = []
    for k, (entry, own) in enumerate(zip(entries, structure, strict=True)):
        one = (None,) * k, (None,) * (len(layers) - k - 1)
        if own.receptors is None:
            tensors.append(per_layer("tau_syn", (*((1.0,) * k), entry, *((1.0,) * len(one[1]))), layers, dtype)[k])
        elif entry is None:
            raise ConfigurationError(f"no tau_syn of layer {k}", "a number, or one for each receptor", "tau_syn=5.0")
        else:
            rows = [own.receptors] * len(layers)
            tensors.append(components("tau_syn", (*one[0], entry, *one[1]), layers, dtype, rows)[k])
    return tensors


def components(name: str, value: object, layers: tuple[int, ...], dtype: torch.dtype, rows: Sequence[int | None]) -> list[Any]:
    """One (C, N) tensor per layer, or None, from a number, C numbers, (C, N), None, or a tuple with one of these per layer.

    Args:
        rows: C of each layer, where it is known.
    """
    entries = value if isinstance(value, tuple) else (value,) * len(layers)
    if len(entries) != len(layers):
        raise ConfigurationError(
            f"{name} with {len(entries)} entries", f"one for each of {len(layers)} layers", f"a tuple of {name}"
        )
    tensors: list[Tensor | None] = []
    for layer, (entry, n, most) in enumerate(zip(entries, layers, rows, strict=True)):
        if entry is None:
            tensors.append(None)
            continue
        c = "C" if most is None else most
        expected = f"a number, {c} of them, or ({c}, {n})"
        x = values(f"{name} of layer {layer}", entry, dtype, expected, f"{name}=[20.0]")
        full = x if x.dim() == 2 else x.reshape(-1, 1)
        full = full.expand(most if most is not None and x.dim() == 0 else len(full), n) if full.shape[-1] in (1, n) else full
        if x.dim() > 2 or not len(full) or full.shape != (len(full) if most is None else most, n):
            raise ConfigurationError(f"{name} of shape {tuple(x.shape)} for layer {layer}", expected, f"{name} of {c} numbers")
        if not bool(full.isfinite().all()):
            raise ConfigurationError(f"{name} of layer {layer} is not finite", "finite numbers", "checking where it comes from")
        tensors.append(full.clone())
    return tensors


def triggered(kind: str, given: Mapping[str, object], layers: tuple[int, ...], dtype: torch.dtype) -> dict[str, list[Any]]:
    """tau, jump and scale of what a neuron's own spikes trigger, its currents ("adapt") or its threshold ("th"), per layer.

    Raises:
        ConfigurationError: one without the others, of other numbers of components, or times that are not positive.
    """
    tau, jump, scale = (f"{part}_{kind}" for part in ("tau", "jump", "scale"))
    times = components(tau, given[tau], layers, dtype, [None] * len(layers))
    rows = [None if x is None else len(x) for x in times]
    jumps, scales = (components(name, given[name], layers, dtype, rows) for name in (jump, scale))
    for k, (t, j, s) in enumerate(zip(times, jumps, scales, strict=True)):
        if (t is None) != (j is None):
            there, missing = (jump, tau) if t is None else (tau, jump)
            raise ConfigurationError(f"{there} of layer {k} without {missing}", "both or none", f"{missing}=[0.1]")
        if t is None and s is not None:
            raise ConfigurationError(f"{scale} of layer {k} without {tau}", f"{tau} and {jump} with it", f"{scale}=None")
        if t is not None and not bool((t > 0.0).all()):
            raise ConfigurationError(f"{tau} of layer {k} from {float(t.min()):g}", "positive times in ms", f"{tau}=[60.0]")
    return {tau: times, jump: jumps, scale: scales}


def following(tau: object, gain: object, layers: tuple[int, ...], dtype: torch.dtype) -> dict[str, list[Any]]:
    """Time constant and gain of what follows the voltage in the threshold of each layer, (N,) each, or None.

    Raises:
        ConfigurationError: one without the other, or times that are not positive.
    """
    found: dict[str, list[Any]] = {}
    for name, value in (("tau_follow", tau), ("gain_follow", gain)):
        entries = value if isinstance(value, tuple) else (value,) * len(layers)
        there = per_layer(name, tuple(1.0 if x is None else x for x in entries), layers, dtype)
        found[name] = [None if x is None else y for x, y in zip(entries, there, strict=True)]
    for k, (t, g) in enumerate(zip(*found.values(), strict=True)):
        if (t is None) != (g is None):
            given, missing = ("gain_follow", "tau_follow") if t is None else ("tau_follow", "gain_follow")
            raise ConfigurationError(f"{given} of layer {k} without {missing}", "both or none", f"{missing}=0.1")
        if t is not None and not bool((t > 0.0).all()):
            raise ConfigurationError(
                f"tau_follow of layer {k} from {float(t.min()):g}", "positive times in ms", "tau_follow=50.0"
            )
    return found


def weight(
    neurons: Sequence[Tensor],
    structure: Structure,
    synapses: Synapses | None,
    sources: int,
    draw: tuple[float, float],
    **to: Any,
) -> Tensor:
    """Gaussian weights in units of the one whose single spike lifts a neuron from its reset to its threshold.

    Args:
        neurons: tau_mem, tau_syn, v_th, v_reset of the layer.
        structure: of the layer.
        synapses: the list of the connections, or None where each pair is one.
        sources: M.
        draw: the mean times fan-in, and the standard deviation times √fan-in.
        to: generator and dtype.
    """
    tau_mem, tau_syn, v_th, v_reset = neurons
    lift = v_th - v_reset
    unit = lift * peak(tau_mem, tau_syn) if structure.leak else lift / tau_syn
    (mean, spread), n, k = draw, len(v_th), structure.currents
    if synapses is None:
        fan_in = max(k * sources, 1)
        shape = (n, sources) if structure.receptors is None else (k, n, sources)
        return (mean / fan_in + spread / fan_in**0.5 * torch.randn(*shape, **to)) * unit[..., None]
    assert isinstance(synapses.receptor, Tensor)
    fan_in = synapses.post.bincount(minlength=n).clamp(min=1).to(unit)[synapses.post]
    units = unit[synapses.post] if unit.dim() == 1 else unit[synapses.receptor, synapses.post]
    noise = torch.randn(synapses.weights, **to)
    if synapses.shared is None:
        return (mean / fan_in + spread / fan_in**0.5 * noise) * units
    which = synapses.shared
    counts = which.bincount(minlength=synapses.weights).clamp(min=1).to(unit)
    means, spreads = (
        noise.new_zeros(len(noise)).index_add(0, which, x) / counts for x in (units / fan_in, units / fan_in**0.5)
    )
    return mean * means + spread * spreads * noise


def peak(tau_mem: Tensor, tau_syn: Tensor) -> Tensor:
    """Weight whose single spike lifts v by 1: 1/peak of the response to a weight of one, for b = 0."""
    ratio = tau_mem / tau_syn
    near = (ratio - 1.0).abs() < 1e-6
    power = torch.where(near, 1.0, ratio.log() / torch.where(near, 1.0, ratio - 1.0) * ratio)  # peak = exp(-power)
    return power.exp()
