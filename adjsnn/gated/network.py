"""The Huh-Sejnowski gated-synapse network, equations (1.1)-(1.4): parameters and structure, no solver."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adjsnn.checks import Count, Number, count, names, on_the_host, placement, positive, values
from adjsnn.errors import ConfigurationError
from adjsnn.gated.gates import Gate, RaisedCosineGate
from adjsnn.gated.membranes import QIF, Membrane
from adjsnn.kept import kept
from adjsnn.numerics.bounds import clip
from adjsnn.reparametrized import renew


class GatedState(NamedTuple):
    """State of a gated-synapse network at one time, every field (B, N), dimensionless.

    Attributes:
        v: membrane voltage.
        a_fast: recurrent synaptic activity.
        a_slow: readout synaptic activity.
    """

    v: Tensor
    a_fast: Tensor
    a_slow: Tensor


class GatedTensors(NamedTuple):
    """Everything a gated network's flow depends on, as explicit tensors.

    Attributes:
        w_in: (N, C_in).
        w_rec: (N, N).
        bias: (N,).
        w_out: (C_out, N).
        tau_fast: () or (N,), ms.
        tau_slow: () or (N,), ms.
        constants: of the membrane, each () or (N,).
    """

    w_in: Tensor
    w_rec: Tensor
    bias: Tensor
    w_out: Tensor
    tau_fast: Tensor
    tau_slow: Tensor
    constants: dict[str, Tensor]

    def flat(self) -> tuple[Tensor, ...]:
        """The tensors in a fixed order, that of `names`."""
        *tensors, constants = self
        return (*tensors, *constants.values())

    def names(self) -> tuple[str, ...]:
        *names, _ = self._fields
        return (*names, *self.constants)

    def kept(self) -> "GatedTensors":
        """Private copies on the tape, which later changes of the network do not reach."""
        constants = {name: kept(x) for name, x in self.constants.items()}
        return GatedTensors._make([*(kept(x) for x in self[:6]), constants])


class GatedSynapseNetwork(nn.Module):
    """N neurons whose synapses are driven by g(v)·dv/dt (Huh & Sejnowski 2018), equations (1.1)-(1.4).

        v̇ = f(v, I),  I = W_rec a_f + W_in u + b,  τ_f ȧ_f = -a_f + g(v) v̇,  τ_s ȧ_s = -a_s + g(v) v̇,  o = W_out a_s

    Args:
        n_in: C_in, number of input channels; 0 for none.
        n_hidden: N, number of neurons.
        n_out: C_out, number of readout channels.
        neuron: membrane model f; default QIF(tau_v=25.0).
        gate: synaptic gate g; default RaisedCosineGate(width=0.1).
        tau_fast: τ_f of the recurrent synapses, ms; a number, or one per presynaptic neuron.
        tau_slow: τ_s of the readout synapses, ms; a number, or one per presynaptic neuron.
        learn: what requires a gradient: "weights" (w_in, w_rec, w_out), "bias", "tau_fast", "tau_slow" and the names of the
            membrane's constants, for example "tau_v".
        generator: source of the random initial weights; default torch's global one.
        dtype: of all parameters; default torch's.
        device: of all parameters; default torch's.

    Attributes:
        w_in: (N, C_in). This and the following are Parameters, those of the membrane's constants under their own names, for
            example `tau_v`. Weights start Gaussian with standard deviation 1/√(fan in), those of w_rec half of that.
        w_rec: (N, N), out by in as all weights.
        bias: b, (N,), starts at 0.
        w_out: (C_out, N).
        tau_fast: τ_f, () or (N,), ms.
        tau_slow: τ_s, () or (N,), ms.

    Raises:
        ConfigurationError: sizes, time constants, gate width or names in `learn` that cannot be right.
    """

    w_in: Tensor
    w_rec: Tensor
    bias: Tensor
    w_out: Tensor
    tau_fast: Tensor
    tau_slow: Tensor

    @on_the_host
    def __init__(
        self,
        n_in: Count,
        n_hidden: Count,
        n_out: Count,
        *,
        neuron: Membrane | None = None,
        gate: Gate | None = None,
        tau_fast: Number | Sequence[float] = 5.0,
        tau_slow: Number | Sequence[float] = 20.0,
        learn: Sequence[str] = ("weights", "bias"),
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.neuron = QIF() if neuron is None else neuron
        self.gate = RaisedCosineGate(0.1) if gate is None else gate
        n_in, n_hidden, n_out = count("n_in", n_in, 0), count("n_hidden", n_hidden), count("n_out", n_out)
        check_zone(self.neuron, self.gate)
        self.n_in, self.n_hidden, self.n_out = n_in, n_hidden, n_out
        known = ("weights", "bias", "tau_fast", "tau_slow", *self.neuron.constants)
        learn = names("learn", learn, known, "one of these, or a membrane that has it")
        placement(device, generator)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
            raise ConfigurationError(f"dtype={dtype}", "torch.float32 or torch.float64", "torch.float32")

        def weight(*shape: int, gain: float = 1.0) -> Tensor:
            values = torch.randn(*shape, generator=generator, dtype=dtype)
            return values * (gain / max(shape[1], 1) ** 0.5)

        initial = {
            "w_in": weight(n_hidden, n_in),
            "w_rec": weight(n_hidden, n_hidden, gain=0.5),
            "bias": torch.zeros(n_hidden, dtype=dtype),
            "w_out": weight(n_out, n_hidden),
            "tau_fast": _time_constant("tau_fast", tau_fast, n_hidden, dtype),
            "tau_slow": _time_constant("tau_slow", tau_slow, n_hidden, dtype),
        }
        for name, value in self.neuron.constants.items():
            initial[name] = torch.tensor(value, dtype=dtype)
        for name, value in initial.items():
            learnt = name in learn or (name.startswith("w_") and "weights" in learn)
            self.register_parameter(name, nn.Parameter(value.to(device), requires_grad=learnt))

    def tensors(self) -> GatedTensors:
        """The network's tensors, fetched by attribute so that parametrizations are applied and gradients flow through them;
        weights that are pruned, or normalised by hooks of torch, are computed anew."""
        renew(self)
        constants = {name: getattr(self, name) for name in self.neuron.constants}
        return GatedTensors(self.w_in, self.w_rec, self.bias, self.w_out, self.tau_fast, self.tau_slow, constants)

    def initial_state(self, batch: Count) -> GatedState:
        """State of rest: voltages and synaptic activities zero, each (B, N)."""
        zeros = self.w_rec.new_zeros(count("batch", batch, 0), self.n_hidden)
        return GatedState(zeros, zeros.clone(), zeros.clone())

    def readout(self, a_slow: Float[Tensor, "*T N"]) -> Float[Tensor, "*T C"]:
        """o = W_out a_s, equation (1.3)."""
        return a_slow @ self.tensors().w_out.T

    def project_(self, *, tau_min: Number) -> "GatedSynapseNetwork":
        """Move learnt parameters to the nearest values that a solve accepts, in place; call it after each step of an optimiser.

        τ_f, τ_s and the membrane's time constants ≥ tau_min; v_reset below the active zone. What is inside keeps its bits.
        Frozen parameters are not moved, parametrized ones set through their right_inverse.

        Args:
            tau_min: ms, longer than the step dt of the solves; several dt, for accuracy.

        Returns:
            the same network.

        Raises:
            ConfigurationError: a bound that is not positive, or a parametrized value outside that cannot be set.
        """
        tau_min = positive("tau_min", tau_min)
        for name in ("tau_fast", "tau_slow", *self.neuron.time_constants):
            clip(self, name, low=tau_min)
        if "v_reset" in self.neuron.constants:
            top = torch.tensor(self.neuron.threshold - self.gate.width, dtype=torch.float64)
            rounded = top.to(self.w_rec.dtype)
            if rounded > top:
                rounded = torch.nextafter(rounded, rounded - 1.0)
            clip(self, "v_reset", high=float(rounded))
        return self

    def extra_repr(self) -> str:
        sizes = f"n_in={self.n_in}, n_hidden={self.n_hidden}, n_out={self.n_out}"
        return f"{sizes}, neuron={self.neuron!r}, gate={self.gate!r}"


def check_zone(neuron: Membrane, gate: Gate) -> None:
    """Refuse what is no membrane or gate, and an active zone that reaches down to the reset.

    Raises:
        ConfigurationError: says which.
    """
    if not isinstance(neuron, Membrane):
        raise ConfigurationError(
            f"neuron={neuron!r} of type {type(neuron).__name__}", "a membrane", "neuron=adjsnn.QIF(tau_v=25.0)"
        )
    if not isinstance(gate, Gate):
        raise ConfigurationError(
            f"gate={gate!r} of type {type(gate).__name__}", "a gate", "gate=adjsnn.RaisedCosineGate(width=0.1)"
        )
    for model, name, what in ((neuron, "constants", "constants=..."), (gate, "width", "width")):
        if name not in vars(model):
            raise ConfigurationError(
                f"{type(model).__name__} without {name}", "what the interface's __init__ sets", f"super().__init__({what})"
            )
    top, rest = neuron.threshold, neuron.constants.get("v_reset", 0.0)
    if gate.width > top - rest:
        raise ConfigurationError(
            f"an active zone of width {gate.width} with threshold {top} and reset {rest}",
            "a zone that ends above the reset, so that a full crossing delivers unit charge",
            f"a gate width below {top - rest}",
        )


def _time_constant(name: str, value: Number | Sequence[float], n_hidden: int, dtype: torch.dtype) -> Tensor:
    tau = values(name, value, dtype, f"a number or {n_hidden} numbers, in ms", f"{name}=5.0")
    if tau.shape not in ((), (n_hidden,)):
        raise ConfigurationError(f"{name} of shape {tuple(tau.shape)}", f"a number or {n_hidden} numbers, in ms", f"{name}=5.0")
    if not bool((tau > 0.0).all() and tau.isfinite().all()):
        raise ConfigurationError(f"{name}={tau.tolist()}", "positive finite times in ms", f"{name}=5.0")
    return tau
