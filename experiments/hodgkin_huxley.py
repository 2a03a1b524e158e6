"""Neurons of Hodgkin and Huxley's kind that another neuron is fitted to, and the currents that drive them.

C v̇ = I - g_L (v - E_L) - g_Na m³h (v - E_Na) - g_K n⁴ (v - E_K) - g_M p (v - E_K), C = 1 µF/cm², in mV, ms, µA/cm², mS/cm².

A HybridSystem says what they are; recordings of many seconds come from a loop that numba compiles, by the classical Runge–Kutta
method. The two are held against each other in tests/training/test_fit_neuron.py.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

import adjsnn

UPWARD = 0.0  # mV: a spike is when v rises through it
LONGEST = 0.025  # ms, of a step of the method


class Neuron(NamedTuple):
    """Conductances and reversal potentials, in mS/cm², mV, ms."""

    g_leak: float
    e_leak: float
    g_na: float
    e_na: float
    g_k: float
    e_k: float
    g_m: float
    tau_m_max: float
    v_t: float
    squid: float
    """1: rates of the squid's axon instead of a cortical cell's"""


NEURONS = {
    # Traub and Miles's cell of hippocampus as one compartment (Ermentrout and Kopell 1998), without and with an M current.
    "traub_miles": Neuron(0.1, -67.0, 100.0, 50.0, 80.0, -100.0, 0.0, 608.0, -67.0, 0.0),
    "adapting": Neuron(0.1, -67.0, 100.0, 50.0, 80.0, -100.0, 0.3, 608.0, -67.0, 0.0),
    # The squid's axon, Hodgkin and Huxley 1952, with rest at -65 mV.
    "squid": Neuron(0.3, -54.4, 120.0, 50.0, 36.0, -77.0, 0.0, 608.0, 0.0, 1.0),
}


def _ratio(x: float, y: float) -> float:
    """x/(e^{x/y} - 1)."""
    return y - 0.5 * x if abs(x) < 1e-6 * y else x / (math.exp(x / y) - 1.0)


_ratio_compiled = numba.njit(error_model="numpy")(_ratio)


@numba.njit(error_model="numpy")
def _field(y, current, neuron, out):
    """d/dt of (v, m, h, n, p)."""
    g_leak, e_leak, g_na, e_na, g_k, e_k, g_m, tau_m_max, v_t, squid = neuron
    v, m, h, n, p = y
    if squid:
        x = v + 65.0
        a_m, b_m = 0.1 * _ratio_compiled(25.0 - x, 10.0), 4.0 * math.exp(-x / 18.0)
        a_h, b_h = 0.07 * math.exp(-x / 20.0), 1.0 / (math.exp((30.0 - x) / 10.0) + 1.0)
        a_n, b_n = 0.01 * _ratio_compiled(10.0 - x, 10.0), 0.125 * math.exp(-x / 80.0)
    else:
        x = v - v_t
        a_m, b_m = 0.32 * _ratio_compiled(13.0 - x, 4.0), 0.28 * _ratio_compiled(x - 40.0, 5.0)
        a_h, b_h = 0.128 * math.exp((17.0 - x) / 18.0), 4.0 / (1.0 + math.exp((40.0 - x) / 5.0))
        a_n, b_n = 0.032 * _ratio_compiled(15.0 - x, 5.0), 0.5 * math.exp((10.0 - x) / 40.0)
    slow = math.exp((v + 35.0) / 20.0)
    out[0] = current - g_leak * (v - e_leak) - g_na * m**3 * h * (v - e_na) - (g_k * n**4 + g_m * p) * (v - e_k)
    out[1] = a_m * (1.0 - m) - b_m * m
    out[2] = a_h * (1.0 - h) - b_h * h
    out[3] = a_n * (1.0 - n) - b_n * n
    out[4] = (1.0 / (1.0 + math.exp(-(v + 35.0) / 10.0)) - p) * (3.3 * slow + 1.0 / slow) / tau_m_max


@numba.njit(error_model="numpy")
def _loop(u, dt, parts, y, neuron, voltage):
    """Fills `voltage` at the ends of steps; returns the spike times, and changes y to the last state."""
    h, spikes = dt / parts, np.empty(0)
    k1, k2, k3, k4 = np.empty(5), np.empty(5), np.empty(5), np.empty(5)
    for j in range(len(u)):
        for part in range(parts):
            before = y[0]
            _field(y, u[j], neuron, k1)
            _field(y + 0.5 * h * k1, u[j], neuron, k2)
            _field(y + 0.5 * h * k2, u[j], neuron, k3)
            _field(y + h * k3, u[j], neuron, k4)
            y += h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
            if before < UPWARD <= y[0]:
                share = (UPWARD - before) / (y[0] - before)
                spikes = np.append(spikes, j * dt + (part + share) * h)
        voltage[j + 1] = y[0]
    return spikes


def rest(neuron: Neuron) -> np.ndarray:
    """The state (v, m, h, n, p) after a second without current."""
    y = np.array([neuron.e_leak, 0.05, 0.6, 0.3, 0.0])
    _loop(np.zeros(1000), 1.0, 40, y, neuron, np.empty(1001))
    return y


def record(neuron: Neuron, u: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Voltage (T + 1,), mV, and spike times, ms, of a neuron at rest that is given currents u (T,), µA/cm², each for dt."""
    voltage, y = np.empty(len(u) + 1), rest(neuron)
    voltage[0] = y[0]
    spikes = _loop(u, dt, max(1, math.ceil(dt / LONGEST - 1e-9)), y, neuron, voltage)
    return voltage, spikes


def random_current(steps: int, dt: float, mean: float, sd: float, tau: float, generator: torch.Generator) -> Tensor:
    """An Ornstein–Uhlenbeck process (T,), held constant over each step."""
    from scipy.signal import lfilter  # noqa: PLC0415

    kept = math.exp(-dt / tau)
    noise = torch.randn(steps, generator=generator, dtype=torch.float64).numpy() * math.sqrt(1.0 - kept**2)
    noise[0] /= math.sqrt(1.0 - kept**2)  # as if it had always run
    return torch.from_numpy(mean + sd * np.asarray(lfilter([1.0], [1.0, -kept], noise)))


class HodgkinHuxley(adjsnn.HybridSystem):
    """The same neuron as a system of differential equations, whose event is the spike. Input u (B, 1), µA/cm²."""

    def __init__(self, neuron: Neuron) -> None:
        super().__init__()
        self.neuron = neuron

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        g_leak, e_leak, g_na, e_na, g_k, e_k, g_m, tau_m_max, v_t, squid = self.neuron
        v, m, h, n, p = y.unbind(1)

        def ratio(x: Tensor, scale: float) -> Tensor:
            near = x.abs() < 1e-6 * scale
            return torch.where(near, scale - 0.5 * x, x / torch.expm1(torch.where(near, 1.0, x) / scale))

        if squid:
            x = v + 65.0
            rates = (
                (0.1 * ratio(25.0 - x, 10.0), 4.0 * torch.exp(-x / 18.0)),
                (0.07 * torch.exp(-x / 20.0), torch.sigmoid((x - 30.0) / 10.0)),
                (0.01 * ratio(10.0 - x, 10.0), 0.125 * torch.exp(-x / 80.0)),
            )
        else:
            x = v - v_t
            rates = (
                (0.32 * ratio(13.0 - x, 4.0), 0.28 * ratio(x - 40.0, 5.0)),
                (0.128 * torch.exp((17.0 - x) / 18.0), 4.0 * torch.sigmoid((x - 40.0) / 5.0)),
                (0.032 * ratio(15.0 - x, 5.0), 0.5 * torch.exp((10.0 - x) / 40.0)),
            )
        gates = [a * (1.0 - gate) - b * gate for (a, b), gate in zip(rates, (m, h, n), strict=True)]
        slow = torch.exp((v + 35.0) / 20.0)
        current = 0.0 if u is None else u[:, 0]
        dv = current - g_leak * (v - e_leak) - g_na * m**3 * h * (v - e_na) - (g_k * n**4 + g_m * p) * (v - e_k)
        return torch.stack([dv, *gates, (torch.sigmoid((v + 35.0) / 10.0) - p) * (3.3 * slow + 1.0 / slow) / tau_m_max], 1)

    def guard(self, t: Tensor, y: Tensor) -> Tensor:
        return y[:, :1] - UPWARD

    def initial_state(self, batch: int) -> Tensor:
        return torch.from_numpy(rest(self.neuron)).expand(batch, 5)
