"""NEST's iaf_psc_exp and iaf_psc_exp_ps: their parameters as a LIFNetwork's, and the other way."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from adjsnn.checks import number, positive
from adjsnn.errors import ConfigurationError
from adjsnn.lif.structure import Structure
from adjsnn.lif.units import plain

DEFAULTS = {"C_m": 250.0, "tau_m": 10.0, "tau_syn_ex": 2.0, "tau_syn_in": 2.0, "E_L": -70.0, "V_th": -55.0, "V_reset": -70.0}
DEFAULTS |= {"t_ref": 2.0, "I_e": 0.0}
OURS = {"tau_syn_ex": "tau_syn"}
# What a neuron's `get()` gives beside these, and a spike does not depend on.
RECORDS = {
    "Ca", "archiver_length", "beta_Ca", "element_type", "global_id", "ignore_and_spike_interval",
    "ignore_and_spike_offset", "is_refractory", "local", "model", "model_id", "node_uses_wfr",
    "post_trace", "recordables", "rho", "synaptic_elements", "t_spike", "tau_Ca", "tau_minus", "tau_minus_triplet", "thread",
    "thread_local_id", "vp",
}  # fmt: skip
# What would change its spikes: of these only the value that does nothing is taken.
IDLE = {"delta": 0.0, "V_min": -np.inf, "I_syn_ex": 0.0, "I_syn_in": 0.0, "frozen": False, "ignore_and_spike": False}
IN = {"delta": "mV", "V_min": "mV", "V_m": "mV", "I_syn_ex": "pA", "I_syn_in": "pA"}
MODELS = ("iaf_psc_exp_ps", "iaf_psc_exp")


def physical(own: object, k: int) -> dict[str, Any]:
    """NEST's parameters of layer k by the names of `LIFNetwork.from_physical`; what is not given has NEST's default.

    Raises:
        ConfigurationError: a name that neither model has, or one that does what these neurons do not.
    """
    if not isinstance(own, Mapping):
        raise ConfigurationError(
            f"parameters of layer {k} of type {type(own).__name__}", "a dict, of NEST's names, for all layers or each",
            "neurons.get()",
        )  # fmt: skip
    if unknown := [name for name in own if name not in {*DEFAULTS, *IDLE, *RECORDS, "V_m"}]:
        raise ConfigurationError(
            f"parameters {unknown} of layer {k}", f"those of iaf_psc_exp_ps: {list(DEFAULTS)}", "a LIFNetwork by its own names"
        )
    if "model" in own and (other := set(np.atleast_1d(own["model"]).tolist()) - set(MODELS)):
        raise ConfigurationError(f"parameters of {sorted(other)}", f"those of {' or '.join(MODELS)}", "neurons of that model")
    for name, idle in (IDLE | {"V_m": own.get("E_L", DEFAULTS["E_L"])}).items():
        if name in own and not _equal(name, own[name], idle):
            raise ConfigurationError(
                f"{name}={own[name]!r} of layer {k}", f"{name}={idle}", "leaving it out; a state to start from is y0 of solve"
            )
    return {OURS.get(name, name): own.get(name, default) for name, default in DEFAULTS.items()}


def _equal(name: str, value: Any, idle: Any) -> bool:
    """Whether a parameter has the values that do nothing; false where they cannot be compared."""
    value, idle = (np.asarray(plain(name, x, IN[name]) if name in IN else x) for x in (value, idle))
    same_shape = () in (value.shape, idle.shape) or value.shape == idle.shape
    return same_shape and value.dtype.kind in "fiub" and bool((value == idle).all())


def nest_layer(layer: Any, structure: Structure, k: int, model: object, e_l: Any, c_m: Any) -> dict[str, Any]:
    """What `nest.Create` and `nest.Connect` take for one layer; see `LIFNetwork.to_nest`.

    Args:
        layer: its tensors, a LIFLayer.
        structure: what it is beside them.
        k: its number, for messages.
        model: iaf_psc_exp_ps or iaf_psc_exp.
        e_l: E_L, mV.
        c_m: C_m, pF.

    Raises:
        ConfigurationError: a layer that is none of NEST's model.
    """
    if model not in MODELS:
        raise ConfigurationError(f"model={model!r}", f"one of {MODELS}", 'model="iaf_psc_exp_ps"')
    e_l, c_m = number("E_L", e_l), positive("C_m", c_m, "a positive capacitance in pF", "C_m=250.0")
    _exists(layer, structure, k, model)
    x = {name: getattr(layer, name).detach().cpu().double() for name in ("tau_mem", "tau_syn", "v_th", "v_reset", "refractory")}
    factor = c_m / x["tau_mem"]  # pA per mV
    taus = x["tau_syn"] if structure.receptors == 2 else x["tau_syn"].reshape(1, -1).expand(2, -1)
    rows = {"C_m": c_m + 0.0 * factor, "tau_m": x["tau_mem"], "tau_syn_ex": taus[0], "tau_syn_in": taus[1]}
    rows |= {
        "E_L": e_l + 0.0 * factor,
        "V_m": e_l + 0.0 * factor,
        "V_th": x["v_th"] + e_l,
        "V_reset": x["v_reset"] + e_l,
        "t_ref": x["refractory"],
    }
    rows |= {"I_e": layer.bias.detach().cpu().double() * factor}
    return {
        "model": model,
        "n": len(factor),
        "params": {name: row.tolist() for name, row in rows.items()},
        "input": _synapses("delays", layer.w_in, layer.delays, factor, k),
        "recurrent": [] if layer.w_rec is None else _synapses("rec_delays", layer.w_rec, layer.rec_delays, factor, k),
    }


def _exists(layer: Any, structure: Structure, k: int, model: str) -> None:
    """Refuse a layer that is none of NEST's model."""
    has = {
        "no leak": not structure.leak,
        f"a reset by {structure.reset}": structure.reset != 0.0,
        f"{structure.receptors} receptors": structure.receptors not in (None, 1, 2),
        "a list of synapses": structure.synapses is not None or structure.rec_synapses is not None,
        "spike-triggered currents": layer.tau_adapt is not None,
        "a threshold that spikes raise": layer.tau_th is not None,
        "a threshold that follows the voltage": layer.tau_follow is not None,
    }
    if found := [what for what, there in has.items() if there]:
        raise ConfigurationError(
            f"layer {k} with {' and '.join(found)}",
            f"a neuron that {model} is, and a weight for each pair",
            "a LIFNetwork without",
        )
    if model == "iaf_psc_exp_ps" and not bool((layer.refractory > 0.0).all()):
        raise ConfigurationError(
            f"refractory times from {float(layer.refractory.min()):g} ms in layer {k}",
            "positive ones, which this model asks for",
            'refractory=0.1, or model="iaf_psc_exp"',
        )


def _synapses(name: str, weights: Tensor, delays: Tensor | None, factor: Tensor, k: int) -> list[dict[str, np.ndarray]]:
    """One syn_spec for each receptor."""
    if delays is None or not bool((delays > 0.0).all()):
        raise ConfigurationError(f"layer {k} without {name}, or with one of 0", "one step of NEST at least", f"{name}=0.1")
    w = weights.detach().cpu().double()
    several = w if w.dim() == 3 else w[None]
    if len(several) == 2 and not (bool((several[0] >= 0.0).all()) and bool((several[1] <= 0.0).all())):
        raise ConfigurationError(
            f"weights of both signs in one receptor of layer {k}", "NEST's: positive ones in the first, negative in the second",
            "clamping them",
        )  # fmt: skip
    time = delays.detach().cpu().double().expand(several.shape[1:]).numpy().copy()
    return [{"weight": (x * factor[:, None]).numpy(), "delay": time} for x in several]
