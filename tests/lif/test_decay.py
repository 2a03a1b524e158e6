"""The exponentials of the compiled LIF loops, each to a few roundings, however long the interval and unequal the constants."""

import mpmath as mp
import numpy as np
import pytest


def alone(t, tau_mem, tau_syn):
    from adjsnn.lif.cpu.flow import decay  # noqa: PLC0415  loads the compiler

    return decay(t, tau_mem, tau_syn)


def in_lanes(t, tau_mem, tau_syn):
    """The same; the third number is K/τ_m."""
    from adjsnn.lif.cpu.elementary import decays, rates_of  # noqa: PLC0415

    e_mem, e_syn, gain = decays(t, rates_of(tau_mem, tau_syn))
    return e_mem, e_syn, gain * tau_mem


def soon(t, tau_mem, tau_syn):
    """That of recurrent layers, likewise."""
    from adjsnn.lif.cpu.elementary import decay_soon, rates_of  # noqa: PLC0415

    e_mem, e_syn, gain = decay_soon(t, rates_of(tau_mem, tau_syn))
    return e_mem, e_syn, gain * tau_mem


@pytest.mark.parametrize("decay", [alone, in_lanes, soon])
def test_all_three_are_exact_to_relative_rounding(decay):
    """Taken from what is left of the slower one, e^{-t/τ} of 15 τ was right to 1e-10, that of 40 τ was 0 or of wrong sign."""
    random, mp.mp.dps = np.random.default_rng(0), 60
    for _ in range(400):
        tau_mem = float(random.uniform(1.0, 30.0))
        tau_syn = tau_mem * float(random.choice((10.0 ** random.uniform(-3.0, 3.0), 1.0 + 10.0 ** random.uniform(-15.0, -1.0))))
        t = float(min(tau_mem, tau_syn) * 10.0 ** random.uniform(-6.0, 2.0))
        m, s, span = mp.mpf(tau_mem), mp.mpf(tau_syn), mp.mpf(t)
        e_mem, e_syn = mp.exp(-span / m), mp.exp(-span / s)
        expected = e_mem, e_syn, (e_mem - e_syn) / (1 / s - 1 / m) if m != s else span * e_mem
        phase = float(span / min(m, s))  # the phases themselves round
        for found, exact in zip(decay(t, tau_mem, tau_syn), expected, strict=True):
            assert abs(float(found / exact) - 1.0) <= 2.0**-52 * (8.0 + 4.0 * phase), (t, tau_mem, tau_syn)
