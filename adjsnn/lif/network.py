"""Layered networks of LIF neurons with exponential synapses and jumps, equations (2.1), (2.2): parameters, no solver."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from adjsnn.checks import Count, Number, count, flag, is_flag, names, on_the_host, placement, positive
from adjsnn.errors import ConfigurationError
from adjsnn.lif.given import PARTS
from adjsnn.lif.start import check_values, delay_times, following, per_layer, time_constants, triggered, weight
from adjsnn.lif.structure import (  # noqa: F401  saved states look here
    VERSION,
    AdaptiveState,
    AnyState,
    LIFLayer,
    LIFState,
    at_rest,
    keep_structure,
    structures,
)
from adjsnn.lif.synapses import Synapses
from adjsnn.numerics.bounds import clip, separate, write
from adjsnn.reparametrized import renew
from adjsnn.shapes import refuse_meta

PerNeuron: TypeAlias = Number | Sequence[float] | tuple[Tensor, ...]
PerComponent: TypeAlias = Number | Sequence[float] | tuple[Any, ...] | None
Delays: TypeAlias = Number | tuple[Number | None, ...] | None
COMPONENTS = ("tau_adapt", "jump_adapt", "scale_adapt", "tau_th", "jump_th", "scale_th")
FOLLOWING = ("tau_follow", "gain_follow")
LEARNABLE = ("weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset", "refractory", "delays")
# The order of the parameters, which saved optimisers go by.
REGISTERED = (
    *("tau_mem", "tau_syn", "v_th", "v_reset", "bias", "refractory", "delays", "rec_delays", "w_in", "w_rec"),
    *COMPONENTS,
    *FOLLOWING,
)


def _entries(listed: Any, layers: Sequence[str]) -> list[Any]:
    """list(listed), in a quarter of the time where it has an entry for each of the layers."""
    if type(listed) is not nn.ParameterList or len(listed) != len(layers):
        return list(listed)
    own = listed._parameters  # what else an entry may be, None or the work of a hook, is an attribute of the list
    return [own[k] if k in own else getattr(listed, k) for k in layers]


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
            "delays", "tau_adapt", "jump_adapt", "scale_adapt", "tau_th", "jump_th", "scale_th", "tau_follow", "gain_follow".
        receptors: K currents per neuron, each with weights and a τ_s of its own, (6.1); None for one, without a dimension of
            its own. With it tau_syn is a number, K numbers or (K, N). Here and below: one for all layers, or a tuple with one
            for each.
        tau_adapt: τ_a of currents that a neuron's own spikes trigger, ms: a number, J numbers or (J, N); None for none.
        jump_adapt: Δa, what a spike adds to them, likewise; negative for adaptation.
        scale_adapt: f, what it multiplies them by before; default 1.
        tau_th: τ_h of components of the threshold, ms: a number, H numbers or (H, N); None for a threshold that stays.
        jump_th: Δh, what a spike adds to them.
        scale_th: what it multiplies them by before; default 1.
        tau_follow: τ_w of one more component of the threshold, which follows the voltage, τ_w ẇ = -w + g v, and is held while v
            is, (6.9); ms, as tau_mem, or None for none.
        gain_follow: g, how far it follows, dimensionless; negative for a threshold that sinks under a steady voltage.
        leak: False for neurons whose voltage does not decay, v̇ = Σ i + Σ a + b per ms, without a τ_m.
        reset: "to" v_reset, "by" v_th - v_reset, or what is left of v - v_th on top of v_reset, 0 to 1.
        synapses: of the inputs of a layer as a list, whose weights are then (W,) and its delays a number or (E,); a tuple with
            one for each layer, None for a weight for each pair. A state_dict holds them, leak and reset, and is not loaded
            onto others.
        rec_synapses: of a layer's own neurons, likewise; such a layer is recurrent.
        generator: source of the random initial weights; default torch's global one.
        dtype: of all parameters; default torch's.
        device: of all parameters; default torch's.

    Attributes:
        w_in: of each layer, (N_l, N_{l-1}), (K, N_l, N_{l-1}) of K receptors, (W,) of a list of synapses. This and the
            following are lists of Parameters, one for each layer. Input weights start Gaussian, in units of the weight whose
            single spike lifts a neuron from reset to threshold: mean 2/fan-in, standard deviation 0.5/√fan-in.
        w_rec: (N_l, N_l), (K, N_l, N_l) or (W,), or None without recurrence; start with mean 0, standard deviation
            0.2/√fan-in in the same units.
        bias: b, (N_l,).
        tau_mem: τ_m, (N_l,), ms.
        tau_syn: τ_s, (N_l,) or (K, N_l), ms.
        v_th: (N_l,).
        v_reset: (N_l,).
        refractory: (N_l,), ms.
        delays: (N_{l-1},) per axon or (N_l, N_{l-1}) per synapse, ms, or None.
        rec_delays: (N_l,) or (N_l, N_l), ms, or None.
        tau_adapt: (J, N_l), ms, or None; so are jump_adapt and scale_adapt.
        tau_th: (H, N_l), ms, or None; so are jump_th and scale_th.
        tau_follow: (N_l,), ms, or None; so is gain_follow, without unit.
        w_out: (n_out, N_last), one Parameter, or None without readout.

    Raises:
        ConfigurationError: sizes, values or names in `learn` that cannot be right.
    """

    _version = VERSION

    w_in: nn.ParameterList
    w_rec: nn.ParameterList
    bias: nn.ParameterList
    tau_mem: nn.ParameterList
    tau_syn: nn.ParameterList
    v_th: nn.ParameterList
    v_reset: nn.ParameterList
    refractory: nn.ParameterList
    delays: nn.ParameterList
    rec_delays: nn.ParameterList
    tau_adapt: nn.ParameterList
    jump_adapt: nn.ParameterList
    scale_adapt: nn.ParameterList
    tau_th: nn.ParameterList
    jump_th: nn.ParameterList
    scale_th: nn.ParameterList
    tau_follow: nn.ParameterList
    gain_follow: nn.ParameterList

    @on_the_host
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
        receptors: Count | tuple[Count | None, ...] | None = None,
        tau_adapt: PerComponent = None,
        jump_adapt: PerComponent = None,
        scale_adapt: PerComponent = None,
        tau_th: PerComponent = None,
        jump_th: PerComponent = None,
        scale_th: PerComponent = None,
        tau_follow: PerComponent = None,
        gain_follow: PerComponent = None,
        leak: bool | np.bool_ | tuple[bool, ...] = True,
        reset: str | Number | tuple[str | Number, ...] = "to",
        synapses: Synapses | tuple[Synapses | None, ...] | None = None,
        rec_synapses: Synapses | tuple[Synapses | None, ...] | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        n_in, layers = count("n_in", n_in), _sizes(layers)
        n_out = None if n_out is None else count("n_out", n_out)
        self.n_in, self.layers, self.n_out = n_in, layers, n_out
        self.structure = structures(self.fan_in, receptors, leak, reset, synapses, rec_synapses)
        recurrent = _recurrent(recurrent, len(layers))
        self.recurrent = tuple(r or x.rec_synapses is not None for r, x in zip(recurrent, self.structure, strict=True))
        self.tau_out = positive("tau_out", tau_out, "a positive finite time in ms", "tau_out=20.0")
        self.learn = names("learn", learn, (*LEARNABLE, *COMPONENTS, *FOLLOWING))
        placement(device, generator)
        bias = flag("bias", bias) if is_flag(bias) else bias
        if bias is True:
            self.learn = (*self.learn, "bias") if "bias" not in self.learn else self.learn
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
            raise ConfigurationError(f"dtype={dtype}", "torch.float32 or torch.float64", "torch.float32")
        own: dict[str, Any] = {"tau_mem": tau_mem, "v_th": v_th, "v_reset": v_reset, "refractory": refractory}
        own["bias"] = 0.0 if isinstance(bias, bool) else bias
        start: dict[str, list[Any]] = {name: per_layer(name, value, layers, dtype) for name, value in own.items()}
        start["tau_syn"] = time_constants(tau_syn, layers, dtype, self.structure)
        check_values(start)
        fan_in = self.fan_in
        sources = tuple(n if rec else None for n, rec in zip(layers, self.recurrent, strict=True))
        wired = [x.synapses for x in self.structure], [x.rec_synapses for x in self.structure]
        start["delays"] = delay_times("delays", delays, layers, fan_in, dtype, wired[0])
        start["rec_delays"] = delay_times("rec_delays", rec_delays, layers, sources, dtype, wired[1])
        of_spikes: dict[str, object] = dict(
            zip(COMPONENTS, (tau_adapt, jump_adapt, scale_adapt, tau_th, jump_th, scale_th), strict=True)
        )
        start |= triggered("adapt", of_spikes, layers, dtype) | triggered("th", of_spikes, layers, dtype)
        start |= following(tau_follow, gain_follow, layers, dtype)
        self._check_learnt(start)
        draws = {"generator": generator, "dtype": dtype}
        for name, listed, froms, draw in (("w_in", wired[0], fan_in, (2.0, 0.5)), ("w_rec", wired[1], sources, (0.0, 0.2))):
            start[name] = []
            for k, (x, m) in enumerate(zip(listed, froms, strict=True)):
                if x is not None:
                    x.check(f"{'rec_' if name == 'w_rec' else ''}synapses[{k}]", m or 0, layers[k], self.structure[k].currents)
                neurons = [start[part][k] for part in ("tau_mem", "tau_syn", "v_th", "v_reset")]
                start[name].append(None if m is None else weight(neurons, self.structure[k], x, m, draw, **draws))
        for name in REGISTERED:
            learnt = name.removeprefix("rec_") in self.learn or (name.startswith("w_") and "weights" in self.learn)
            entries = [None if x is None else x.to(device=device, dtype=dtype) for x in start[name]]
            parameters = [None if x is None else nn.Parameter(x, requires_grad=learnt) for x in entries]
            setattr(self, name, nn.ParameterList(parameters))
        self.w_out: nn.Parameter | None = None
        if n_out is not None:
            w_out = torch.randn(n_out, layers[-1], generator=generator, dtype=dtype) / layers[-1] ** 0.5
            self.w_out = nn.Parameter(w_out.to(device), requires_grad="weights" in self.learn)
        keep_structure(self)

    def _check_learnt(self, start: dict[str, list[Any]]) -> None:
        """Refuse to learn what is not there."""
        if "delays" in self.learn and all(d is None for d in (*start["delays"], *start["rec_delays"])):
            raise ConfigurationError('learn names "delays", but there are none', "delays to start from", "delays=1.0")
        for name in (*COMPONENTS, *FOLLOWING):
            if name in self.learn and all(x is None for x in start[name]):
                raise ConfigurationError(f'learn names "{name}", but there is none', "values to start from", f"{name}=[...]")
        if "tau_mem" in self.learn and not any(x.leak for x in self.structure):
            raise ConfigurationError('learn names "tau_mem" of neurons without leak', "neurons that have one", "leak=True")

    @staticmethod
    def glif(level: Count, config: Mapping[str, Any], neurons: Count = 1, **options: Any) -> "LIFNetwork":
        """Neurons of the Allen Institute's GLIF levels 1 to 5 by their published parameters, driven by an injected current.

        Voltages are in mV above El, times in ms; the one input is a current u in pA, `solve(lif, u, dt=...)`. Level 1 is a LIF
        neuron, 2 adds its reset rule and a threshold that spikes raise, 3 adds afterspike currents to 1, 4 both, 5 to that a
        threshold that follows the voltage.

        Args:
            level: 1 to 5.
            config: parameters in SI units by the names of their files neuron_config.json: R_input, C, th_inf, dt,
                spike_cut_length; from level 2 on voltage_reset_method (a, b) and threshold_dynamics_method (a_spike, b_spike);
                from 3 on asc_amp_array, asc_tau_array and AScurrent_reset_method (r); of 5 in threshold_dynamics_method also
                (a_voltage, b_voltage); El and coeffs where they are given.
            neurons: how many equal ones.
            options: of LIFNetwork, such as `learn` and `dtype`.

        Raises:
            ConfigurationError: another level, or a parameter that is missing or impossible.
        """
        from adjsnn.lif.allen import glif_options  # noqa: PLC0415  what few need

        given, per_current = glif_options(level, config, neurons)
        lif = LIFNetwork(**{**given, **options})
        with torch.no_grad():
            lif.w_in[0].fill_(per_current)
        return lif

    @staticmethod
    def from_physical(
        parameters: Mapping[str, Any] | tuple[Mapping[str, Any], ...],
        n_in: Count,
        layers: Count | Sequence[int] = 1,
        *,
        weights: Any,
        rec_weights: Any = None,
        delays: Any = None,
        rec_delays: Any = None,
        **options: Any,
    ) -> "LIFNetwork":
        """LIF neurons by physical constants, C_m V̇ = -(V - E_L)/R + I + I_e, τ_s İ = -I: as (2.1), v in mV above E_L.

        A weight is R w and b is R I_e, both in mV. Numbers have the units below; quantities of pint, quantities or Brian2 have
        their own.

        Args:
            parameters: tau_m (ms) and one of C_m (pF), R (MΩ), g_L (nS), or C_m and one of R, g_L; tau_syn (ms), V_th (mV);
                tau_syn_in of negative weights, default tau_syn; E_L (0 mV), V_reset (E_L), t_ref (0 ms), I_e (0 pA). Each a
                number or N numbers; a dict for all layers, or a tuple with one for each.
            n_in: number of input neurons.
            layers: number of neurons in each layer.
            weights: pA, a number or (N, M), or a tuple with one for each layer. Quantities of a voltage are R w already.
            rec_weights: (N, N), likewise; None for no recurrence.
            delays: ms, as of LIFNetwork.
            rec_delays: ms, likewise.
            options: of LIFNetwork, such as `learn` and `dtype`.

        Returns:
            a network, with receptors=2 where tau_syn_in is another than tau_syn: positive weights in the first, negative ones
            in the second.

        Raises:
            ConfigurationError: names that are unknown, missing or too many; units or shapes that do not fit.
        """
        from adjsnn.lif.physical import physical_options  # noqa: PLC0415  what few need

        n_in, sizes = count("n_in", n_in), _sizes(layers)
        given = {"weights": weights, "rec_weights": rec_weights, "delays": delays, "rec_delays": rec_delays}
        made, *both = physical_options(parameters, (n_in, *sizes[:-1]), sizes, given, options)
        lif = LIFNetwork(n_in, sizes, **made, **options)
        with torch.no_grad():
            for starts, own in zip(both, (lif.w_in, lif.w_rec), strict=True):
                for k, w in enumerate(starts):
                    if w is not None:
                        own[k].copy_(w)
        return lif

    @staticmethod
    def from_nest(
        parameters: Mapping[str, Any] | tuple[Mapping[str, Any], ...],
        n_in: Count,
        layers: Count | Sequence[int] = 1,
        *,
        weights: Any,
        **given: Any,
    ) -> "LIFNetwork":
        """NEST's iaf_psc_exp or iaf_psc_exp_ps: C_m, tau_m, tau_syn_ex, tau_syn_in, E_L, V_th, V_reset, t_ref, I_e.

        Delays and refractory times act as they are given; see `rounded`.

        Args:
            parameters: of a layer by NEST's names, in its units, each a number or N numbers, as `neurons.get()` has them; what
                is left out has NEST's default. A dict for all layers, or a tuple with one for each.
            n_in: number of input neurons.
            layers: number of neurons in each layer.
            weights: pA, those of `syn_spec`, as of `from_physical`.
            given: delays in ms, likewise, and the rest as of `from_physical`.

        Raises:
            ConfigurationError: another model's parameters, or what these neurons have not: escape noise (`delta`), a lower
                bound of the voltage (`V_min`), a state to start from (`V_m`).
        """
        from adjsnn.lif.nest import physical  # noqa: PLC0415

        several = parameters if isinstance(parameters, tuple) else (parameters,)
        own = tuple(physical(x, k) for k, x in enumerate(several))
        constants = own if isinstance(parameters, tuple) else own[0]
        return LIFNetwork.from_physical(constants, n_in, layers, weights=weights, **given)

    def to_nest(self, model: str = "iaf_psc_exp_ps", *, E_L: Number = -70.0, C_m: Number = 250.0) -> list[dict[str, Any]]:
        """What NEST takes for each layer, v in mV above E_L: `n` and `params` of Create, and lists of `syn_spec`.

            neurons = nest.Create(x["model"], x["n"], x["params"])
            for syn_spec in x["input"]:
                nest.Connect(below, neurons, "all_to_all", syn_spec)

        Args:
            model: "iaf_psc_exp_ps", whose spikes lie between grid points, or "iaf_psc_exp", on the grid.
            E_L: resting potential, mV: spikes do not depend on it.
            C_m: capacitance, pF: currents and weights are in proportion to it.

        Raises:
            ConfigurationError: neurons that NEST's model is not: without leak, with another reset, adaptation, a moving
                threshold, lists of synapses; no delays, or of 0; with "iaf_psc_exp_ps" no refractory time; a readout.
        """
        from adjsnn.lif.nest import nest_layer  # noqa: PLC0415

        refuse_meta(self)
        if self.w_out is not None:
            raise ConfigurationError(
                "a filtered readout, w_out",
                "a network without one, as NEST gets the layers alone",
                "n_out=None, or w_out = None",
            )
        rows = zip(self.tensors(), self.structure, strict=True)
        return [nest_layer(layer, structure, k, model, E_L, C_m) for k, (layer, structure) in enumerate(rows)]

    def rounded(self, simulator: str, h: Number = 0.1) -> "LIFNetwork":
        """A copy whose delays and refractory times are what they act as in a simulator that steps by h ms.

        NEST: delays to the nearest step, halves up, and at least one; refractory times up to whole steps, from whole
        microseconds. Brian2: delays to the nearest step, refractory times down to whole steps, less one. Measured, with NEST
        3.10.0 and Brian2 2.9.0: docs/simulators.md.

        Args:
            simulator: "nest" or "brian2".
            h: the step, ms.

        Raises:
            ConfigurationError: another simulator; for NEST delays below half a step, or none.
        """
        from adjsnn.lif.rounding import Grid  # noqa: PLC0415

        grid, other = Grid(simulator, h), deepcopy(self)
        refuse_meta(self)
        for k, (layer, recurrent) in enumerate(zip(self.tensors(), self.recurrent, strict=True)):
            new = {"refractory": grid.refractory(layer.refractory.detach()), "delays": grid.delays("delays", layer.delays)}
            new["rec_delays"] = grid.delays("rec_delays", layer.rec_delays) if recurrent else None
            for name, x in new.items():
                if x is not None:
                    with torch.no_grad():
                        write(getattr(other, name), str(k), x)
        return other

    @property
    def fan_in(self) -> tuple[int, ...]:
        """M of each layer, the number of neurons that feed it."""
        return (self.n_in, *self.layers[:-1])

    def tensors(self) -> list[LIFLayer]:
        """The tensors of each layer, fetched so that parametrizations are applied and gradients flow through them; weights
        that are pruned, or normalised by hooks of torch, are computed anew."""
        renew(self)
        layers, parts, cls = [str(k) for k in range(len(self.layers))], self._modules, type(self)
        # Torch looks a module up last, which takes its time: what a class has of that name goes first.
        fetched = (parts[x] if x in parts and not hasattr(cls, x) else getattr(self, x) for x in LIFLayer._fields)
        lists = [_entries(listed, layers) for listed in fetched]
        for name, entries in zip(LIFLayer._fields, lists, strict=True):
            if len(entries) != len(self.layers):
                raise ConfigurationError(
                    f"{name} with {len(entries)} entries", f"one for each of {len(self.layers)} layers", f"{name}[l] = ..."
                )
        return [LIFLayer(*row) for row in zip(*lists, strict=True)]

    def initial_state(self, batch: Count) -> list[AnyState]:
        """State of rest of each layer: voltages and currents zero, and what spikes trigger, as LIFState and
        AdaptiveState say."""
        batch = count("batch", batch, 0)
        rows = zip(self.v_th, self.tau_adapt, self.tau_th, self.tau_follow, strict=True)
        return [at_rest((batch, n), own, row) for n, own, row in zip(self.layers, self.structure, rows, strict=True)]

    def project_(self, *, tau_min: Number = 0.1, tau_max: Number | None = None, margin: Number = 0.01) -> "LIFNetwork":
        """Move learnt parameters to the nearest values that a solve accepts, in place; call it after each step of an optimiser.

        τ_m, τ_s, τ_a, τ_h, τ_w ≥ tau_min; delays, refractory ≥ 0; v_th - v_reset ≥ margin, of which both move where both are
        learnt. What is inside keeps its bits. Frozen parameters do not move, parametrized ones by their right_inverse.

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
            for taus in (self.tau_mem, self.tau_syn, self.tau_adapt, self.tau_th, self.tau_follow):
                clip(taus, k, low=tau_min, high=tau_max)
            for times in (self.refractory, self.delays, self.rec_delays):
                clip(times, k, low=0.0)
            separate((self.v_reset, k), (self.v_th, k), margin)
        return self

    def extra_repr(self) -> str:
        return f"n_in={self.n_in}, layers={self.layers}, recurrent={self.recurrent}, n_out={self.n_out}, learn={self.learn}"

    def __repr__(self) -> str:
        """In one line: of the lists of parameters most are of what this network has not."""
        lists = all(isinstance(part, nn.ParameterList) or name in PARTS for name, part in self.named_children())
        return f"{self._get_name()}({self.extra_repr()})" if lists else super().__repr__()


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
