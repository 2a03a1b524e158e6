"""Texts of models as they were published, their constants, and states at rest without current; `models.py` says sources."""

import math
from collections.abc import Mapping, Sequence

Constants = dict[str, float]


def _table(names: str, rows: Mapping[str, Sequence[float]]) -> dict[str, Constants]:
    return {kind: dict(zip(names.split(), row, strict=True)) for kind, row in rows.items()}


IZHIKEVICH = """\
dv/dt = 0.04*v**2 + 5*v + 140 - w + I  # mV
dw/dt = a*(b*v - w)
"""

IZHIKEVICH_KINDS = _table(
    "a b c d",
    {
        # 2003, Fig. 2
        "regular spiking": (0.02, 0.2, -65.0, 8.0),
        "intrinsically bursting": (0.02, 0.2, -55.0, 4.0),
        "chattering": (0.02, 0.2, -50.0, 2.0),
        "fast spiking": (0.1, 0.2, -65.0, 2.0),
        "thalamo-cortical": (0.02, 0.25, -65.0, 0.05),
        "resonator": (0.1, 0.26, -65.0, 2.0),
        "low-threshold spiking": (0.02, 0.25, -65.0, 2.0),
        # 2004, Fig. 1, those that have the same equations
        "tonic spiking": (0.02, 0.2, -65.0, 6.0),
        "phasic spiking": (0.02, 0.25, -65.0, 6.0),
        "tonic bursting": (0.02, 0.2, -50.0, 2.0),
        "phasic bursting": (0.02, 0.25, -55.0, 0.05),
        "mixed mode": (0.02, 0.2, -55.0, 4.0),
        "spike frequency adaptation": (0.01, 0.2, -65.0, 8.0),
        "class 2": (0.2, 0.26, -65.0, 0.0),
        "rebound spike": (0.03, 0.25, -60.0, 4.0),
        "rebound burst": (0.03, 0.25, -52.0, 0.0),
    },
)


def izhikevich_rest(b: float) -> float:
    """v at rest, mV, the lower of two solutions."""
    return (b - 5.0 - math.sqrt((5.0 - b) ** 2 - 22.4)) / 0.08


ADEX = """\
dv/dt = (-g_l*(v - e_l) + g_l*delta_t*exp((v - v_t)/delta_t) - w + I)/c_m  # mV
dw/dt = (a*(v - e_l) - w)/tau_w  # pA
"""

ADEX_KINDS = _table(
    "c_m g_l e_l v_t delta_t a tau_w b v_r",
    {
        "brette-gerstner": (281.0, 30.0, -70.6, -50.4, 2.0, 4.0, 144.0, 80.5, -70.6),
        # Naud et al. 2008, the eight patterns of Fig. 4
        "tonic spiking": (200.0, 10.0, -70.0, -50.0, 2.0, 2.0, 30.0, 0.0, -58.0),
        "adaptation": (200.0, 12.0, -70.0, -50.0, 2.0, 2.0, 300.0, 60.0, -58.0),
        "initial burst": (130.0, 18.0, -58.0, -50.0, 2.0, 4.0, 150.0, 120.0, -50.0),
        "regular bursting": (200.0, 10.0, -58.0, -50.0, 2.0, 2.0, 120.0, 100.0, -46.0),
        "delayed accelerating": (200.0, 12.0, -70.0, -50.0, 2.0, -10.0, 300.0, 0.0, -58.0),
        "delayed regular bursting": (100.0, 10.0, -65.0, -50.0, 2.0, -10.0, 90.0, 30.0, -47.0),
        "transient spiking": (100.0, 10.0, -65.0, -50.0, 2.0, 10.0, 90.0, 100.0, -47.0),
        "irregular spiking": (100.0, 12.0, -60.0, -50.0, 2.0, -11.0, 130.0, 30.0, -48.0),
    },
)
ADEX_CURRENTS = {  # pA, of the same figure
    "tonic spiking": 500.0,
    "adaptation": 500.0,
    "initial burst": 400.0,
    "regular bursting": 210.0,
    "delayed accelerating": 300.0,
    "delayed regular bursting": 110.0,
    "transient spiking": 180.0,
    "irregular spiking": 160.0,
}

EXPONENTIAL = """\
dv/dt = (1 - held)*(-g_l*(v - e_l) + g_l*delta_t*exp((v - v_t)/delta_t) + I)/c_m  # mV
dheld/dt = 0  # 1 while refractory
dclock/dt = held  # ms since the spike
"""
EXPONENTIAL_CONSTANTS = {
    "c_m": 1.0, "g_l": 0.1, "e_l": -65.0, "v_t": -59.9, "delta_t": 3.48, "v_r": -68.0, "refractory": 1.7,
}  # fmt: skip
EXPONENTIAL_REST = {"v": -63.8962966816359, "held": 0.0, "clock": 0.0}

QUADRATIC = "dv/dt = (v**2 + eta + I)/tau"
QUADRATIC_CONSTANTS = {"tau": 10.0, "eta": -5.0, "v_p": 100.0}
QUADRATIC_REST = {"v": -2.23606797749979}  # -√5

FITZHUGH_NAGUMO = """\
dv/dt = v - v**3/3 - w + I
dw/dt = epsilon*(v + a - b*w)
"""
FITZHUGH_NAGUMO_CONSTANTS = {"a": 0.7, "b": 0.8, "epsilon": 0.08}
FITZHUGH_NAGUMO_REST = {"v": -1.199408035244035, "w": -0.6242600440550439}

MORRIS_LECAR = """\
dv/dt = (I - g_l*(v - e_l) - g_ca*m_inf*(v - e_ca) - g_k*w*(v - e_k))/c_m  # mV
dw/dt = phi*cosh((v - v_3)/(2*v_4))*(w_inf - w)
m_inf = (1 + tanh((v - v_1)/v_2))/2
w_inf = (1 + tanh((v - v_3)/v_4))/2
"""
_MORRIS_LECAR = {
    "c_m": 20.0, "g_l": 2.0, "g_k": 8.0, "e_l": -60.0, "e_ca": 120.0, "e_k": -84.0, "v_1": -1.2, "v_2": 18.0,
}  # fmt: skip
MORRIS_LECAR_KINDS = {
    "hopf": {**_MORRIS_LECAR, "g_ca": 4.4, "v_3": 2.0, "v_4": 30.0, "phi": 0.04},
    "saddle-node": {**_MORRIS_LECAR, "g_ca": 4.0, "v_3": 12.0, "v_4": 17.4, "phi": 1.0 / 15.0},
}
MORRIS_LECAR_REST = {
    "hopf": {"v": -60.855382232309495, "w": 0.014915024953999323},
    "saddle-node": {"v": -59.4739978667887, "w": 0.0002703826249129522},
}

GATES = """\
dm/dt = a_m*(1 - m) - b_m*m
dh/dt = a_h*(1 - h) - b_h*h
dn/dt = a_n*(1 - n) - b_n*n
"""
SQUID = f"""\
dv/dt = (I - g_na*m**3*h*(v - e_na) - g_k*n**4*(v - e_k) - g_l*(v - e_l))/c_m  # mV
{GATES}a_m = 1/exprel(-(v + 40)/10)
b_m = 4*exp(-(v + 65)/18)
a_h = 0.07*exp(-(v + 65)/20)
b_h = sigmoid((v + 35)/10)
a_n = 0.1/exprel(-(v + 55)/10)
b_n = 0.125*exp(-(v + 65)/80)
"""
_CORTICAL_RATES = """\
a_m = 1.28/exprel((13 - v + v_t)/4)
b_m = 1.4/exprel((v - v_t - 40)/5)
a_h = 0.128*exp((17 - v + v_t)/18)
b_h = 4*sigmoid((v - v_t - 40)/5)
a_n = 0.16/exprel((15 - v + v_t)/5)
b_n = 0.5*exp((10 - v + v_t)/40)
"""
TRAUB_MILES = f"""\
dv/dt = (I - g_na*m**3*h*(v - e_na) - g_k*n**4*(v - e_k) - g_l*(v - e_l))/c_m  # mV
{GATES}{_CORTICAL_RATES}"""
CORTICAL = f"""\
dv/dt = (I - g_na*m**3*h*(v - e_na) - (g_k*n**4 + g_m*p)*(v - e_k) - g_l*(v - e_l))/c_m  # mV
{GATES}dp/dt = (sigmoid((v + 35)/10) - p)/tau_p
tau_p = tau_max/(3.3*exp((v + 35)/20) + exp(-(v + 35)/20))  # ms
{_CORTICAL_RATES}"""
# text, constants, rest
HODGKIN_HUXLEY_KINDS: dict[str, tuple[str, Constants, Constants]] = {
    "squid": (
        SQUID,
        {"c_m": 1.0, "g_na": 120.0, "g_k": 36.0, "g_l": 0.3, "e_na": 50.0, "e_k": -77.0, "e_l": -54.387},
        {"v": -64.99637933119206, "m": 0.05295508681300812, "h": 0.5959941247398638, "n": 0.31773239976086576},
    ),
    "traub-miles": (
        TRAUB_MILES,
        {"c_m": 1.0, "g_na": 100.0, "g_k": 80.0, "g_l": 0.1, "e_na": 50.0, "e_k": -100.0, "e_l": -67.0, "v_t": -67.0},
        {"v": -66.59109339660779, "m": 0.01604278224199061, "h": 0.9954960694229347, "n": 0.04027512398461225},
    ),
    "regular spiking": (
        CORTICAL,
        {
            "c_m": 1.0, "g_na": 56.0, "g_k": 6.0, "g_m": 0.075, "g_l": 0.0205, "e_na": 50.0, "e_k": -90.0, "e_l": -70.3,
            "v_t": -56.2, "tau_max": 608.0,
        },
        {
            "v": -71.9106831842498, "m": 0.0004497841848711096, "h": 0.9999264441432658, "n": 0.002222244829082066,
            "p": 0.024338213275384338,
        },
    ),
    "fast spiking": (
        CORTICAL,
        {
            "c_m": 1.0, "g_na": 58.0, "g_k": 3.9, "g_m": 0.0787, "g_l": 0.038, "e_na": 50.0, "e_k": -90.0, "e_l": -70.4,
            "v_t": -57.9, "tau_max": 502.0,
        },
        {
            "v": -71.38723661649541, "m": 0.0007537102639729998, "h": 0.9998701740371055, "n": 0.0033996270391531743,
            "p": 0.025612622118715348,
        },
    ),
}  # fmt: skip

WANG_BUZSAKI = """\
dv/dt = (I - g_na*m_inf**3*h*(v - e_na) - g_k*n**4*(v - e_k) - g_l*(v - e_l))/c_m  # mV
dh/dt = phi*(a_h*(1 - h) - b_h*h)
dn/dt = phi*(a_n*(1 - n) - b_n*n)
m_inf = a_m/(a_m + b_m)
a_m = 1/exprel(-(v + 35)/10)
b_m = 4*exp(-(v + 60)/18)
a_h = 0.07*exp(-(v + 58)/20)
b_h = sigmoid((v + 28)/10)
a_n = 0.1/exprel(-(v + 34)/10)
b_n = 0.125*exp(-(v + 44)/80)
"""
WANG_BUZSAKI_CONSTANTS = {
    "c_m": 1.0, "g_na": 35.0, "g_k": 9.0, "g_l": 0.1, "e_na": 55.0, "e_k": -90.0, "e_l": -65.0, "phi": 5.0,
}  # fmt: skip
WANG_BUZSAKI_REST = {"v": -64.0175649096368, "h": 0.780791551001644, "n": 0.08907801030858757}

_RESOURCES = """\
dphase/dt = rate  # a spike comes whenever it reaches 1
dx/dt = z/tau_rec
dy/dt = -y/tau_in
dz/dt = y/tau_in - z/tau_rec
"""
_SYNAPSE_REST = {"phase": 0.5, "x": 1.0, "y": 0.0, "z": 0.0}
# text, reset, constants, rest
TSODYKS_MARKRAM_KINDS: dict[str, tuple[str, str, Constants, Constants]] = {
    "depressing": (
        _RESOURCES,
        "phase -= 1; y += U*x; x -= U*x",
        {"U": 0.5, "tau_rec": 800.0, "tau_in": 3.0, "weight": 1.0},
        _SYNAPSE_REST,
    ),
    "facilitating": (
        _RESOURCES + "du/dt = -u/tau_facil\n",
        "phase -= 1; u += U*(1 - u); y += u*x; x -= u*x",
        {"U": 0.04, "tau_rec": 100.0, "tau_facil": 1000.0, "tau_in": 3.0, "weight": 1.0},
        {**_SYNAPSE_REST, "u": 0.0},
    ),
}

RESONATE_AND_FIRE = """\
dx/dt = b*x - omega*y + I  # current-like
dy/dt = omega*x + b*y  # voltage-like
"""
RESONATE_AND_FIRE_CONSTANTS = {"b": -1.0, "omega": 10.0}
