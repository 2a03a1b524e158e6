"""Published models of neurons and synapses, as `Equations`: `adjsnn.models`.

    neuron = adjsnn.models.hodgkin_huxley("squid", learn=("g_na", "g_k", "g_l"))
    print(neuron.text)
    sol = adjsnn.solve(neuron, u, dt=1.0, method="dopri5")  # from the state at rest

Each function takes the name of a published set of constants, `learn`, `size` and `dtype` as Equations does, and constants by
name that replace published ones: numbers, or tensors as Equations takes them. With `size` there are so many neurons, each with
a current of its own. They start at rest without current. `text` may be copied, changed, and given to `Equations`.
"""

from collections.abc import Mapping
from typing import Any

import torch

from adjsnn.checks import Count, count
from adjsnn.equations import published
from adjsnn.equations.glif import glif_text
from adjsnn.equations.system import Equations, Names, Texts
from adjsnn.errors import ConfigurationError

__all__ = [
    "adex",
    "exponential_if",
    "fitzhugh_nagumo",
    "glif",
    "hodgkin_huxley",
    "izhikevich",
    "morris_lecar",
    "quadratic_if",
    "resonate_and_fire",
    "tsodyks_markram",
    "wang_buzsaki",
]


def izhikevich(
    kind: str = "regular spiking",
    *,
    learn: Names = (),
    size: Count = 1,
    dtype: torch.dtype | None = None,
    **constants: Any,
) -> Equations:
    """Izhikevich's neuron: v̇ = 0.04 v² + 5 v + 140 - w + I, ẇ = a (b v - w); at v = 30: v ← c, w ← w + d.

    v in mV, w and I in mV/ms, a in 1/ms, b in 1/ms, c in mV, d in mV/ms. Starts at rest, w = b v.

    Simple model of spiking neurons, IEEE Trans. Neural Netw. 14:1569 (2003), (1)-(3): "regular spiking", "intrinsically
    bursting", "chattering", "fast spiking", "thalamo-cortical", "resonator", "low-threshold spiking". Which model to use for
    cortical spiking neurons?, 15:1063 (2004), Fig. 1: "tonic spiking", "phasic spiking", "tonic bursting", "phasic bursting",
    "mixed mode", "spike frequency adaptation", "class 2", "rebound spike", "rebound burst".

    Args:
        kind: of the neuron.
        learn: names of constants that are learnt.
        size: how many neurons.
        dtype: of the constants.
        constants: in place of those of the kind: a, b, c, d.

    Raises:
        ConfigurationError: another kind, or what Equations refuses.
    """
    known = _one_of("kind", kind, published.IZHIKEVICH_KINDS)
    rest = published.izhikevich_rest(known["b"])
    initial = {"v": rest, "w": f"b*({rest!r})"}
    return _made(published.IZHIKEVICH, "v > 30", "v = c; w += d", known, constants, initial, learn, size, dtype)


def adex(
    kind: str = "brette-gerstner",
    *,
    learn: Names = (),
    size: Count = 1,
    dtype: torch.dtype | None = None,
    **constants: Any,
) -> Equations:
    """The adaptive exponential neuron: C v̇ = -g_L (v - E_L) + g_L Δ e^{(v - V_T)/Δ} - w + I, τ_w ẇ = a (v - E_L) - w.

    At v = V_T + 10 Δ: v ← V_r, w ← w + b. From there v would reach infinity within e⁻¹⁰ C/g_L, less than a µs, too fast for
    steps of ordinary numbers to see; so spikes come that much earlier than of the peaks of the papers. v in mV, w and I in pA,
    C in pF, g_L and a in nS, b in pA. Starts at v = E_L, w = 0, which is rest but for
    some µV.

    Brette and Gerstner, J. Neurophysiol. 94:3637 (2005), (1)-(3): "brette-gerstner". Naud, Marcille, Clopath and Gerstner,
    Biol. Cybern. 99:335 (2008), the patterns of Fig. 4, by the constants with which its figures come out: "tonic spiking",
    "adaptation", "initial burst", "regular bursting", "delayed accelerating", "delayed regular bursting", "transient spiking",
    "irregular spiking"; ADEX_CURRENTS has the currents that evoke them.

    Args:
        kind: of the neuron.
        learn: names of constants that are learnt.
        size: how many neurons.
        dtype: of the constants.
        constants: in place of those of the kind: c_m, g_l, e_l, v_t, delta_t, a, tau_w, b, v_r.

    Raises:
        ConfigurationError: another kind, or what Equations refuses.
    """
    known = _one_of("kind", kind, published.ADEX_KINDS)
    initial = {"v": "e_l", "w": 0.0}
    return _made(published.ADEX, "v > v_t + 10*delta_t", "v = v_r; w += b", known, constants, initial, learn, size, dtype)


ADEX_CURRENTS = published.ADEX_CURRENTS


def exponential_if(*, learn: Names = (), size: Count = 1, dtype: torch.dtype | None = None, **constants: Any) -> Equations:
    """The exponential neuron: C v̇ = -g_L (v - E_L) + g_L Δ e^{(v - V_T)/Δ} + I; at v = V_T + 10 Δ: v ← V_r, held for τ_ref.

    v in mV, I in µA/cm², C in µF/cm², g_L in mS/cm², τ_ref, `refractory`, in ms. `held` is 1 while the neuron is refractory,
    and `clock` the time since the spike; the end of it is an event, too. Starts at rest, v = -63.9.

    Fourcaud-Trocmé, Hansel, van Vreeswijk and Brunel, J. Neurosci. 23:11628 (2003), (9)-(11), fitted to the neuron of
    `wang_buzsaki`. The peak is where `adex` has it.

    Args:
        learn: names of constants that are learnt.
        size: how many neurons.
        dtype: of the constants.
        constants: in place of the published: c_m, g_l, e_l, v_t, delta_t, v_r, refractory.

    Raises:
        ConfigurationError: what Equations refuses.
    """
    threshold = {"spike": "v > v_t + 10*delta_t", "release": "clock > refractory"}
    reset = {"spike": "v = v_r; held = 1; clock = 0", "release": "held = 0; clock = 0"}
    known, initial = published.EXPONENTIAL_CONSTANTS, published.EXPONENTIAL_REST
    return _made(published.EXPONENTIAL, threshold, reset, known, constants, initial, learn, size, dtype)


def quadratic_if(*, learn: Names = (), size: Count = 1, dtype: torch.dtype | None = None, **constants: Any) -> Equations:
    """The quadratic neuron: τ v̇ = v² + η + I; at v = v_p: v ← -v_p.

    v and I without unit, τ in ms. Starts at v = -√5, at rest with the published η.

    Montbrió, Pazó and Roxin, Phys. Rev. X 5:021028 (2015), (1), with η = -5 and v_p = 100, time counted in membrane time
    constants of 10 ms.

    Args:
        learn: names of constants that are learnt.
        size: how many neurons.
        dtype: of the constants.
        constants: in place of the published: tau, eta, v_p.

    Raises:
        ConfigurationError: what Equations refuses.
    """
    known, initial = published.QUADRATIC_CONSTANTS, published.QUADRATIC_REST
    return _made(published.QUADRATIC, "v > v_p", "v = -v_p", known, constants, initial, learn, size, dtype)


def fitzhugh_nagumo(*, learn: Names = (), size: Count = 1, dtype: torch.dtype | None = None, **constants: Any) -> Equations:
    """FitzHugh and Nagumo's oscillator: v̇ = v - v³/3 - w + I, ẇ = ε (v + a - b w). An event where v rises through 0.

    v, w and I without unit, ε in 1/ms. Starts at rest, v = -1.199, w = -0.624.

    FitzHugh, Biophys. J. 1:445 (1961); Nagumo, Arimoto and Yoshizawa, Proc. IRE 50:2061 (1962); ε = 0.08 as in FitzHugh,
    Mathematical models of excitation and propagation in nerve (1969).

    Args:
        learn: names of constants that are learnt.
        size: how many oscillators.
        dtype: of the constants.
        constants: in place of the published: a, b, epsilon.

    Raises:
        ConfigurationError: what Equations refuses.
    """
    known, rest = published.FITZHUGH_NAGUMO_CONSTANTS, published.FITZHUGH_NAGUMO_REST
    return _made(published.FITZHUGH_NAGUMO, "v > 0", "", known, constants, rest, learn, size, dtype)


def morris_lecar(
    kind: str = "hopf", *, learn: Names = (), size: Count = 1, dtype: torch.dtype | None = None, **constants: Any
) -> Equations:
    """Morris and Lecar's neuron: C v̇ = I - g_L (v - E_L) - g_Ca m∞ (v - E_Ca) - g_K w (v - E_K), ẇ = φ cosh(·) (w∞ - w).

    An event where v rises through 0. v in mV, I in µA/cm², C in µF/cm², conductances in mS/cm², φ in 1/ms.

    Morris and Lecar, Biophys. J. 35:193 (1981), (2), (9); constants of Rinzel and Ermentrout, Analysis of neural excitability
    and oscillations (1998), where rest loses its stability to oscillations of a frequency, "hopf" (class 2), or in a
    saddle-node on a circle, "saddle-node" (class 1).

    Args:
        kind: of the neuron.
        learn: names of constants that are learnt.
        size: how many neurons.
        dtype: of the constants.
        constants: in place of those of the kind: c_m, g_l, g_ca, g_k, e_l, e_ca, e_k, v_1, v_2, v_3, v_4, phi.

    Raises:
        ConfigurationError: another kind, or what Equations refuses.
    """
    known, rest = _one_of("kind", kind, published.MORRIS_LECAR_KINDS), published.MORRIS_LECAR_REST[kind]
    return _made(published.MORRIS_LECAR, "v > 0", "", known, constants, rest, learn, size, dtype)


def hodgkin_huxley(
    kind: str = "squid", *, learn: Names = (), size: Count = 1, dtype: torch.dtype | None = None, **constants: Any
) -> Equations:
    """Hodgkin and Huxley's neuron: C v̇ = I - g_Na m³ h (v - E_Na) - g_K n⁴ (v - E_K) - g_L (v - E_L), ẋ = α (1 - x) - β x.

    An event where v rises through 0. v in mV, I in µA/cm², C in µF/cm², conductances in mS/cm², rates in 1/ms. Rates of the
    form x/(1 - e⁻ˣ) are 1/exprel(-x), without their hole at 0. "regular spiking" and "fast spiking" have a slow potassium
    current g_M p (v - E_K) besides.

    "squid": Hodgkin and Huxley, J. Physiol. 117:500 (1952), (26) and Table 3, voltages turned round with rest at -65 mV.
    "traub-miles": one compartment of Traub and Miles (1991) as in Ermentrout and Kopell, PNAS 95:1259 (1998). "regular spiking"
    and "fast spiking": Pospischil et al., Biol. Cybern. 99:427 (2008), fitted to cortical neurons.

    Args:
        kind: of the neuron.
        learn: names of constants that are learnt.
        size: how many neurons.
        dtype: of the constants.
        constants: in place of those of the kind: c_m, g_na, g_k, g_l, e_na, e_k, e_l; but of "squid" v_t, by which rates are
            shifted; of the last two g_m and tau_max, ms.

    Raises:
        ConfigurationError: another kind, or what Equations refuses.
    """
    text, known, rest = _one_of("kind", kind, published.HODGKIN_HUXLEY_KINDS)
    return _made(text, "v > 0", "", known, constants, rest, learn, size, dtype)


def wang_buzsaki(*, learn: Names = (), size: Count = 1, dtype: torch.dtype | None = None, **constants: Any) -> Equations:
    """Wang and Buzsáki's fast-spiking interneuron: as `hodgkin_huxley`, with m at m∞(v) and rates of h and n φ times as fast.

    An event where v rises through 0. v in mV, I in µA/cm², C in µF/cm², conductances in mS/cm².

    Wang and Buzsáki, J. Neurosci. 16:6402 (1996).

    Args:
        learn: names of constants that are learnt.
        size: how many neurons.
        dtype: of the constants.
        constants: in place of the published: c_m, g_na, g_k, g_l, e_na, e_k, e_l, phi.

    Raises:
        ConfigurationError: what Equations refuses.
    """
    known, rest = published.WANG_BUZSAKI_CONSTANTS, published.WANG_BUZSAKI_REST
    return _made(published.WANG_BUZSAKI, "v > 0", "", known, constants, rest, learn, size, dtype)


def tsodyks_markram(
    kind: str = "depressing", *, learn: Names = (), size: Count = 1, dtype: torch.dtype | None = None, **constants: Any
) -> Equations:
    """A synapse that tires: shares x of its resources recovered, y active, z inactive; a spike makes u x of them active.

    ẋ = z/τ_rec, ẏ = -y/τ_in, ż = y/τ_in - z/τ_rec. "facilitating": u̇ = -u/τ_facil, and a spike first takes u to u + U (1 - u);
    "depressing": u = U. Read is `weight` y. Times in ms.

    Its input is the rate of presynaptic spikes, in 1/ms: a spike comes whenever ∫ rate dt, from a half on, reaches a whole
    number. So a pulse of area 1, rate = 1/dt for dt, is one spike in its middle, and a gradient by the input is one by spike
    times. Starts recovered.

    Tsodyks, Uziel and Markram, J. Neurosci. 20:RC50 (2000), (3), (4), and the constants of its excitatory synapses,
    "depressing", and of those to and from inhibitory neurons, "facilitating".

    Args:
        kind: of the synapse.
        learn: names of constants that are learnt.
        size: how many synapses.
        dtype: of the constants.
        constants: in place of those of the kind: U, tau_rec, tau_in, weight, tau_facil.

    Raises:
        ConfigurationError: another kind, or what Equations refuses.
    """
    text, reset, known, rest = _one_of("kind", kind, published.TSODYKS_MARKRAM_KINDS)
    made = (text, "phase > 1", reset, known, constants, rest, learn, size, dtype)
    return _made(*made, current="rate", readout="weight*y")


def resonate_and_fire(*, learn: Names = (), size: Count = 1, dtype: torch.dtype | None = None, **constants: Any) -> Equations:
    """The resonate-and-fire neuron: ż = (b + iω) z + I, z = x + iy; at y = 1: z ← i.

    x, y and I without unit, b and ω in 1/ms. Starts at z = 0.

    Izhikevich, Resonate-and-fire neurons, Neural Netw. 14:883 (2001), b = -1, ω = 10.

    Args:
        learn: names of constants that are learnt.
        size: how many neurons.
        dtype: of the constants.
        constants: in place of the published: b, omega.

    Raises:
        ConfigurationError: what Equations refuses.
    """
    known, initial = published.RESONATE_AND_FIRE_CONSTANTS, {"x": 0.0, "y": 0.0}
    return _made(published.RESONATE_AND_FIRE, "y > 1", "x = 0; y = 1", known, constants, initial, learn, size, dtype)


def glif(
    level: Count,
    config: Mapping[str, Any],
    *,
    learn: Names = (),
    size: Count = 1,
    dtype: torch.dtype | None = None,
    **constants: Any,
) -> Equations:
    """A neuron of the Allen Institute's GLIF levels 1 to 5, by its published parameters: that of `LIFNetwork.glif`, as text.

    v in mV above El, times in ms, I in pA. A LIFNetwork solves it in closed form; this is for what is added to its equations.
    `held` is 1 during the time cut out for a spike, and `clock` the time since it. Starts at v = 0.

    Teeter et al., Nat. Commun. 9:709 (2018); docs/equations.md, (6.1), (6.2), (6.9).

    Args:
        level: 1 to 5.
        config: parameters in SI units by the names of the files neuron_config.json, as LIFNetwork.glif takes them.
        learn: names of constants that are learnt.
        size: how many neurons.
        dtype: of the constants.
        constants: in place of those of `config`, by the names of the text: weight, tau_mem, v_th, v_reset, refractory; kept;
            tau_1, jump_1, scale_1 and so on; tau_th, jump_th; tau_follow, gain.

    Raises:
        ConfigurationError: what LIFNetwork.glif or Equations refuses.
    """
    from adjsnn.lif.allen import glif_options  # noqa: PLC0415  what few need

    text, threshold, reset, known, initial = glif_text(*glif_options(level, config, 1))
    return _made(text, threshold, reset, known, constants, initial, learn, size, dtype)


def _one_of(name: str, given: object, kinds: Mapping[str, Any]) -> Any:
    if not isinstance(given, str) or given not in kinds:
        raise ConfigurationError(f"{name}={given!r}", f"one of {', '.join(map(repr, kinds))}", f"{name}={next(iter(kinds))!r}")
    return kinds[given]


def _made(
    text: str,
    threshold: Texts,
    reset: Texts,
    known: Mapping[str, Any],
    constants: Mapping[str, Any],
    initial: Mapping[str, Any],
    learn: Names,
    size: Count,
    dtype: torch.dtype | None,
    *,
    current: str = "I",
    readout: Names | None = None,
) -> Equations:
    """The equations of a model, with constants exchanged.

    Raises:
        ConfigurationError: a constant that the model has not.
    """
    for name in constants:
        if name not in known:
            raise ConfigurationError(f"the constant {name!r}", f"one of {', '.join(known)}", f"{next(iter(known))}=...")
    return Equations(
        text,
        threshold=threshold,
        reset=reset,
        parameters={**known, **constants},
        inputs={current: count("size", size)},
        learn=learn,
        size=size,
        readout=readout,
        initial=initial,
        dtype=dtype,
    )
