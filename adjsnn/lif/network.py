"""Layered networks of LIF neurons with exponential synapses and jumps, equations (2.1), (2.2): parameters, no solver."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from adjsnn.checks import Count, Number, count, flag, is_flag, names, placement, positive, values
from adjsnn.errors import ConfigurationError
from adjsnn.kept import kept
from adjsnn.numerics.bounds import clip, separate
from adjsnn.reparametrized import renew

PerNeuron: TypeAlias = Number | Sequence[float] | tuple[Tensor, ...]
Delays: TypeAlias = Number | tuple[Number | None, ...] | None
LEARNABLE = ("weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset", "refractory", "delays")


class LIFState(NamedTuple):
    """State of one layer at one time.

    Attributes:
        v: membrane voltage, (B, N), dimensionless.
        i: synaptic current, (B, N), dimensionless.
    """

    v: Tensor
    i: Tensor


class LIFLayer(NamedTuple):
    """Everything the flow and the jumps of one layer depend on, as explicit tensors.

    Attributes:
        w_in: (N, M).
        w_rec: (N, N), or None without recurrence.
        bias: (N,).
        tau_mem: (N,), ms.
        tau_syn: (N,), ms.
        v_th: (N,).
        v_reset: (N,).
        refractory: (N,), ms.
        delays: (M,) per axon or (N, M) per synapse, ms, or None.
        rec_delays: (N,) or (N, N), ms, or None.
    """

    w_in: Tensor
    w_rec: Tensor | None
    bias: Tensor
    tau_mem: Tensor
    tau_syn: Tensor
    v_th: Tensor
    v_reset: Tensor
    refractory: Tensor
    delays: Tensor | None
    rec_delays: Tensor | None

    def kept(self) -> "LIFLayer":
        """Private copies on the tape, which later changes of the network do not reach."""
        return LIFLayer._make([None if x is None else kept(x) for x in self])


class LIFNetwork(nn.Module):
    """Layers of LIF neurons that jump: a spike resets its neuron and adds a weight to the currents it reaches.

        τ_m v̇ = -v + i + b      τ_s i̇ = -i                        between events (2.1)
        v_n reaches v_th:        v_n ← v_reset, held there for the refractory time; i_m ← i_m + W_mn a delay later (2.2)

    Args:
        n_in: number of input neurons, whose spikes are given to `adjsnn.solve`.
        layers: number of neurons in each layer; layer l is fed by layer l-1.
        recurrent: whether the neurons of a layer project to each other; a bool, or one per layer.
        tau_mem: τ_m, ms. Here and below: a number; N numbers where there is one layer; or a tuple with one of these for each
            layer.
        tau_syn: τ_s, ms.
        v_th: threshold.
        v_reset: reset, below the threshold.
        bias: b. False: zero; True: zero and learnt; or values as above, learnt if `learn` says so.
        delays: of the connections into a layer, ms. None; a number; per axon (M,) or per synapse (N, M) where there is one
            layer; or a tuple with one of these for each layer.
        rec_delays: of the recurrent connections, likewise, (N,) or (N, N).
        refractory: for how long v stays at v_reset after a spike, ms, while the current goes on.
        n_out: number of channels of a filtered linear readout of the last layer's spikes; None for none.
        tau_out: time constant of that filter, ms.
        learn: what requires a gradient, among "weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset", "refractory",
            "delays".
        generator: source of the random initial weights; default torch's global one.
        dtype: of all parameters; default torch's.
        device: of all parameters; default torch's.

    Attributes:
        w_in: of each layer, (N_l, N_{l-1}). This and the following are lists of Parameters, one for each layer. Input weights
            start Gaussian, in units of the weight whose single spike lifts a neuron from reset to threshold: mean 2/fan-in,
            standard deviation 0.5/√fan-in.
        w_rec: (N_l, N_l), or None without recurrence; start with mean 0, standard deviation 0.2/√fan-in in the same units.
        bias: b, (N_l,).
        tau_mem: τ_m, (N_l,), ms.
        tau_syn: τ_s, (N_l,), ms.
        v_th: (N_l,).
        v_reset: (N_l,).
        refractory: (N_l,), ms.
        delays: (N_{l-1},) per axon or (N_l, N_{l-1}) per synapse, ms, or None.
        rec_delays: (N_l,) or (N_l, N_l), ms, or None.
        w_out: (n_out, N_last), one Parameter, or None without readout.

    Raises:
        ConfigurationError: sizes, values or names in `learn` that cannot be right.
    """

    def __init__(
        self,
        n_in: Count,
        layers: Count | Sequence[int] = (120, 3),
        recurrent: bool | np.bool_ | Sequence[bool] = False,
        tau_mem: PerNeuron = 20.0,
        tau_syn: PerNeuron = 5.0,
        v_th: PerNeuron = 1.0,
        v_reset: PerNeuron = 0.0,
        bias: bool | np.bool_ | PerNeuron = False,
        delays: Delays = None,
        rec_delays: Delays = None,
        refractory: PerNeuron = 0.0,
        n_out: Count | None = None,
        tau_out: Number = 20.0,
        learn: Sequence[str] = ("weights",),
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        n_in, layers = count("n_in", n_in), _sizes(layers)
        n_out = None if n_out is None else count("n_out", n_out)
        self.n_in, self.layers, self.n_out = n_in, layers, n_out
        self.recurrent = _recurrent(recurrent, len(layers))
        self.tau_out = positive("tau_out", tau_out, "a positive finite time in ms", "tau_out=20.0")
        self.learn = names("learn", learn, LEARNABLE)
        placement(device, generator)
        bias = flag("bias", bias) if is_flag(bias) else bias
        if bias is True:
            self.learn = (*self.learn, "bias") if "bias" not in self.learn else self.learn
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
            raise ConfigurationError(f"dtype={dtype}", "torch.float32 or torch.float64", "torch.float32")

        def listed(name: str, values: Sequence[Tensor | None]) -> nn.ParameterList:
            learnt = name.removeprefix("rec_") in self.learn or (name.startswith("w_") and "weights" in self.learn)
            return nn.ParameterList(
                [None if x is None else nn.Parameter(x.to(device=device, dtype=dtype), requires_grad=learnt) for x in values]
            )

        per_neuron: dict[str, Any] = {
            "tau_mem": tau_mem,
            "tau_syn": tau_syn,
            "v_th": v_th,
            "v_reset": v_reset,
            "refractory": refractory,
        }
        per_neuron["bias"] = 0.0 if isinstance(bias, bool) else bias
        start = {name: _per_layer(name, value, layers, dtype) for name, value in per_neuron.items()}
        _check_values(start)
        fan_in = self.fan_in
        self.tau_mem, self.tau_syn = listed("tau_mem", start["tau_mem"]), listed("tau_syn", start["tau_syn"])
        self.v_th, self.v_reset = listed("v_th", start["v_th"]), listed("v_reset", start["v_reset"])
        self.bias, self.refractory = listed("bias", start["bias"]), listed("refractory", start["refractory"])
        self.delays = listed("delays", _delays("delays", delays, layers, fan_in, dtype))
        sources = tuple(n if rec else None for n, rec in zip(layers, self.recurrent, strict=True))
        self.rec_delays = listed("rec_delays", _delays("rec_delays", rec_delays, layers, sources, dtype))
        if "delays" in self.learn and all(d is None for d in (*self.delays, *self.rec_delays)):
            raise ConfigurationError('learn names "delays", but there are none', "delays to start from", "delays=1.0")

        def weight(layer: int, sources: int, mean: float, spread: float) -> Tensor:
            noise = torch.randn(layers[layer], sources, generator=generator, dtype=dtype)
            scaled = mean / max(sources, 1) + spread / max(sources, 1) ** 0.5 * noise
            return scaled * _single_spike_weight(*(start[k][layer] for k in ("tau_mem", "tau_syn", "v_th", "v_reset")))[:, None]

        self.w_in = listed("w_in", [weight(k, m, 2.0, 0.5) for k, m in enumerate(fan_in)])
        self.w_rec = listed("w_rec", [None if m is None else weight(k, m, 0.0, 0.2) for k, m in enumerate(sources)])
        self.w_out: nn.Parameter | None = None
        if n_out is not None:
            w_out = torch.randn(n_out, layers[-1], generator=generator, dtype=dtype) / layers[-1] ** 0.5
            self.w_out = nn.Parameter(w_out.to(device), requires_grad="weights" in self.learn)

    @property
    def fan_in(self) -> tuple[int, ...]:
        """M of each layer, the number of neurons that feed it."""
        return (self.n_in, *self.layers[:-1])

    def tensors(self) -> list[LIFLayer]:
        """The tensors of each layer, fetched so that parametrizations are applied and gradients flow through them; weights
        that are pruned, or normalised by hooks of torch, are computed anew."""
        renew(self)
        lists = [list(getattr(self, name)) for name in LIFLayer._fields]
        for name, entries in zip(LIFLayer._fields, lists, strict=True):
            if len(entries) != len(self.layers):
                raise ConfigurationError(
                    f"{name} with {len(entries)} entries", f"one for each of {len(self.layers)} layers", f"{name}[l] = ..."
                )
        return [LIFLayer(*row) for row in zip(*lists, strict=True)]

    def initial_state(self, batch: Count) -> list[LIFState]:
        """State of rest of each layer: voltages and currents zero, each (B, N)."""
        batch = count("batch", batch, 0)
        zeros = [w.new_zeros(batch, n) for w, n in zip(self.w_in, self.layers, strict=True)]
        return [LIFState(x, x.clone()) for x in zeros]

    def project_(self, *, tau_min: Number = 0.1, tau_max: Number | None = None, margin: Number = 0.01) -> "LIFNetwork":
        """Move learnt parameters to the nearest values that a solve accepts, in place; call it after each step of an optimiser.

        τ_m, τ_s ≥ tau_min; delays, refractory ≥ 0; v_th - v_reset ≥ margin, of which both move where both are learnt. What is
        inside keeps its bits. Frozen parameters are not moved, parametrized ones set through their right_inverse.

        Args:
            tau_min: lower bound of the time constants, ms.
            tau_max: their upper bound, ms; None for none.
            margin: least distance of the reset from the threshold, in units of voltage.

        Returns:
            the same network.

        Raises:
            ConfigurationError: bounds that are not positive, or a parametrized value outside that cannot be set.
        """
        tau_min, margin = positive("tau_min", tau_min), positive("margin", margin, "a positive distance", "margin=0.01")
        tau_max = None if tau_max is None else positive("tau_max", tau_max)
        if tau_max is not None and tau_max < tau_min:
            raise ConfigurationError(f"tau_max={tau_max!r} below tau_min={tau_min!r}", "tau_min ≤ tau_max", "tau_max=None")
        for k in map(str, range(len(self.layers))):
            for taus in (self.tau_mem, self.tau_syn):
                clip(taus, k, low=tau_min, high=tau_max)
            for times in (self.refractory, self.delays, self.rec_delays):
                clip(times, k, low=0.0)
            separate((self.v_reset, k), (self.v_th, k), margin)
        return self

    def extra_repr(self) -> str:
        return f"n_in={self.n_in}, layers={self.layers}, recurrent={self.recurrent}, n_out={self.n_out}"


def _single_spike_weight(tau_mem: Tensor, tau_syn: Tensor, v_th: Tensor, v_reset: Tensor) -> Tensor:
    """Weight whose single spike lifts v by v_th - v_reset: 1/peak of the response to a weight of one, for b = 0."""
    ratio = tau_mem / tau_syn
    near = (ratio - 1.0).abs() < 1e-6
    power = torch.where(near, 1.0, ratio.log() / torch.where(near, 1.0, ratio - 1.0) * ratio)  # peak = exp(-power)
    return (v_th - v_reset) * power.exp()


def _sizes(layers: object) -> tuple[int, ...]:
    """Neurons of each layer, from one number or several."""
    several = _listed(layers)
    sizes = (count("layers", layers, remedy="layers=(120, 3)"),) if several is None else several
    if not sizes:
        raise ConfigurationError("no layers", "at least one number of neurons", "layers=(120, 3)")
    return tuple(count(f"layers[{k}]", n) for k, n in enumerate(sizes))


def _recurrent(recurrent: object, layers: int) -> tuple[bool, ...]:
    several = _listed(recurrent)
    flags = (recurrent,) * layers if several is None else several
    if len(flags) != layers or not all(is_flag(x) for x in flags):
        raise ConfigurationError(f"recurrent={recurrent!r}", f"a bool, or {layers} of them", "recurrent=False")
    return tuple(flag("recurrent", x) for x in flags)


def _listed(given: object) -> list[Any] | None:
    """The entries of a sequence, array or tensor of one dimension; None for anything else."""
    if isinstance(given, (Tensor, np.ndarray)):
        return list(given) if given.ndim == 1 else None
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else None


def _per_layer(name: str, value: PerNeuron, layers: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
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


def _delays(
    name: str, value: Delays, layers: tuple[int, ...], sources: Sequence[int | None], dtype: torch.dtype
) -> list[Tensor | None]:
    """One delay tensor per layer, (M,) or (N, M), or None."""
    entries = value if isinstance(value, tuple) else (value,) * len(layers)
    if len(entries) != len(layers):
        raise ConfigurationError(
            f"{name} with {len(entries)} entries", f"one for each of {len(layers)} layers", f"a tuple of {name}"
        )
    tensors: list[Tensor | None] = []
    for layer, (entry, n, m) in enumerate(zip(entries, layers, sources, strict=True)):
        if entry is None or (m is None and not isinstance(value, tuple) and np.ndim(entry) == 0):
            tensors.append(None)
            continue
        if m is None:
            raise ConfigurationError(f"{name} for layer {layer}, which is not recurrent", "None there", "recurrent=True")
        x = values(
            f"{name} of layer {layer}", entry, dtype, f"a number, ({m},) per axon or ({n}, {m}) per synapse", f"{name}=1.0"
        )
        if x.shape not in ((), (m,), (n, m)):
            raise ConfigurationError(
                f"{name} of shape {tuple(x.shape)} for layer {layer}",
                f"a number, ({m},) per axon or ({n}, {m}) per synapse",
                f"{name}=1.0",
            )
        if not bool((x >= 0.0).all() and x.isfinite().all()):
            raise ConfigurationError(
                f"{name} from {float(x.min()):g} ms in layer {layer}", "finite times ≥ 0 in ms", f"{name}=1.0"
            )
        tensors.append(x.expand(m).clone() if x.dim() == 0 else x.clone())
    return tensors


def _check_values(start: dict[str, list[Tensor]]) -> None:
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
