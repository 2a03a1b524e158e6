"""Single spikes in closed form (5.7): against the event-exact adjoint, all causal sets in many digits, and singles."""

import itertools

import mpmath
import pytest
import torch

import adjsnn
from adjsnn import ConfigurationError, EventAdjoint, LIFNetwork, SpikeTrains
from adjsnn.lif.structure import LIFState
from adjsnn.rules import SingleSpike

F64 = torch.float64
T_END = 50.0
LEARNT = ("weights", "tau_mem", "tau_syn", "v_th")
# The leak, of which the closed form has nothing, is 1e-14 of v at its end; a spike near its slowest multiplies that.
TAU_MEM = 1e14 * T_END


def uniform(generator, low, high, *shape):
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=F64)


def network(seed=0, layers=(8, 3), n_in=5, delays=None, dtype=F64, mean=1.5, spread=2.0, **options) -> LIFNetwork:
    """Weights, in units of the one whose charge reaches the threshold, around mean/fan-in, many of them negative."""
    generator = torch.Generator().manual_seed(seed)
    fan_in = (n_in, *layers[:-1])
    if delays == "axon":
        delays = tuple(uniform(generator, 0.0, 6.0, m) for m in fan_in)
    elif delays == "synapse":
        delays = tuple(uniform(generator, 0.0, 6.0, n, m) for n, m in zip(layers, fan_in, strict=True))
    given = {
        "tau_mem": TAU_MEM,
        "tau_syn": tuple(uniform(generator, 3.0, 8.0, n) for n in layers),
        "v_th": tuple(uniform(generator, 0.5, 1.5, n) for n in layers),
        "refractory": T_END,
        "learn": LEARNT if delays is None else (*LEARNT, "delays"),
    } | options
    net = LIFNetwork(n_in, layers, delays=delays, dtype=dtype, **given)
    with torch.no_grad():
        for w, tau in zip(net.w_in, net.tau_syn, strict=True):
            noise = torch.randn(w.shape, generator=generator, dtype=F64)
            m = w.shape[1]
            w.copy_((mean / m + spread / m**0.5 * noise) * TAU_MEM / tau.detach().double()[:, None])
    return net


def spikes(seed=0, batch=6, rate=40.0, ties=False, dtype=F64) -> SpikeTrains:
    rates = torch.full((batch, 5), rate, dtype=F64)
    x = SpikeTrains.poisson(rates, 0.6 * T_END, generator=torch.Generator().manual_seed(seed))
    time = (x.time / 4.0).floor() * 4.0 if ties else x.time
    return SpikeTrains(x.idx, time.to(dtype), 5, T_END)


def started(net, batch):
    """Initial states of every neuron and sample, apart from rest."""
    generator, dtype = torch.Generator().manual_seed(1), net.w_in[0].dtype
    noise = [torch.randn(2, batch, n, generator=generator, dtype=F64) for n in net.layers]
    rows = zip(noise, net.v_th, net.tau_mem, net.tau_syn, strict=True)
    states = [
        ((0.2 * a[0]).clamp(max=0.4).to(dtype), (0.1 * a[1] * (v_th * tau / syn).detach()).to(dtype))
        for a, v_th, tau, syn in rows
    ]
    return [LIFState(v.requires_grad_(), i.requires_grad_()) for v, i in states]


def solved(net, x, rule, **options):
    """First spike times of each layer, and gradients of a sum over the finite ones by all that learns, input times and y0."""
    x = SpikeTrains(x.idx, x.time.clone().requires_grad_(), x.n_neurons, x.t_max)
    leaves = {name: p for name, p in net.named_parameters() if p.requires_grad} | {"time": x.time}
    y0 = started(net, x.batch)
    leaves |= {f"{name}.{k}": part for k, state in enumerate(y0) for name, part in state._asdict().items()}
    sol = adjsnn.solve(net, x, adjoint=rule, y0=y0, **options)
    first = [sol.first_spike_times(k) for k in range(len(net.layers))]
    loss = sum(
        (torch.linspace(0.5, 1.5, t.numel(), dtype=t.dtype).view(t.shape) * t)[t.isfinite()].square().sum() for t in first
    )
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return sol, [t.detach() for t in first], dict(zip(leaves, found, strict=True))


def assert_equal(found, expected, tolerance):
    """Times to a tolerance; gradients to it of the largest of their tensor, since entries cancel differently."""
    for a, b in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    for name, b in expected[2].items():
        assert bool(b.any()), name
        torch.testing.assert_close(found[2][name], b, rtol=tolerance, atol=tolerance * float(b.abs().max()), msg=name)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("delays", [None, "axon", "synapse"])
def test_times_and_gradients_are_those_of_the_event_adjoint(delays, ties):
    net, x = network(delays=delays), spikes(ties=ties)
    found = solved(net, x, SingleSpike())
    for kernels in ("plain", "fused"):
        expected = solved(net, x, EventAdjoint(), kernels=kernels)
        assert_equal(found, expected, 1e-10)
    for k, (t, n) in enumerate(zip(found[1], net.layers, strict=True)):
        assert 0 < int(t.isfinite().sum()) < 6 * n  # some spike and some are silent
        assert torch.equal(found[0].layer_counts(k), expected[0].layer_counts(k))


def test_what_else_a_solution_tells_is_the_same():
    net, x = network(), spikes()
    sol, other = (adjsnn.solve(net, x, adjoint=rule) for rule in (SingleSpike(), EventAdjoint()))
    assert sol.stats.layer_spikes == other.stats.layer_spikes
    assert sol.stats.silent == other.stats.silent
    assert sol.stats.grazing == []
    assert sol.stats.kernel_reason.startswith("the closed form")
    for k in range(2):
        torch.testing.assert_close(sol.layer_speeds(k), other.layer_speeds(k), rtol=1e-9, atol=0.0)
        for state, expected in zip(sol.final_state[k], other.final_state[k], strict=True):
            torch.testing.assert_close(state, expected, rtol=1e-9, atol=1e-9 * float(expected.detach().abs().max()))
        assert torch.equal(sol.layer_spikes[k].idx, other.layer_spikes[k].idx)
        # The largest voltage of silent neurons has a gradient, through the spikes of the layer below too.
        largest = [torch.autograd.grad(s.voltage_max(k).sum(), net.w_in[0], retain_graph=True)[0] for s in (sol, other)]
        torch.testing.assert_close(largest[0], largest[1], rtol=1e-9, atol=1e-9 * float(largest[1].abs().max()))
    labels = torch.arange(6) % 3
    losses = [adjsnn.losses.first_spike_cross_entropy(s, labels) for s in (sol, other)]
    gradients = [torch.autograd.grad(loss, net.w_in[0])[0] for loss in losses]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-10 * float(gradients[1].abs().max()))


def by_all_causal_sets(weights, times, tau, theta, t_end):
    """The earliest spike that any set of arrivals causes which is just what arrived before it: (5.7) by mpmath, or inf.

    A current at the start is an arrival at 0, and a voltage there is taken from the threshold.
    """
    found = mpmath.inf
    arrivals = list(zip(weights, times, strict=True))
    for size in range(len(arrivals) + 1):
        for causes in itertools.combinations(arrivals, size):
            others = [t for w, t in arrivals if (w, t) not in causes]
            charge, sum_z = mpmath.fsum(w for w, _ in causes) - theta, mpmath.fsum(w * mpmath.exp(t / tau) for w, t in causes)
            if not (charge > 0 and sum_z > 0):
                continue
            t = tau * mpmath.log(sum_z / charge)
            if max([0, *(s for _, s in causes)]) < t <= min([*others, t_end]):
                found = min(found, t)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_no_set_of_causes_gives_an_earlier_spike(seed):
    """Two layers in 40 digits, all 2^M sets tried; gradients by central differences in as many digits."""
    net, x = network(seed, layers=(4, 2)), spikes(seed, batch=1, rate=25.0)
    _, (hidden, output), gradients = solved(net, x, SingleSpike())
    with mpmath.workdps(40):
        end = mpmath.mpf(T_END)
        given = [[[mpmath.mpf(v) for v in row] for row in w.tolist()] for w in net.w_in]
        v, i = ([[mpmath.mpf(u) for u in state[j][0].tolist()] for state in started(net, 1)] for j in range(2))
        source, inputs = x.idx[0].tolist(), [mpmath.mpf(t) for t in x.time[0].tolist()]

        def layer(k, w, times, sources):
            tau, v_th, tau_mem = ([mpmath.mpf(v) for v in p[k].tolist()] for p in (net.tau_syn, net.v_th, net.tau_mem))
            return [
                by_all_causal_sets(
                    [i[k][n], *(row[m] for m in sources)],
                    [0, *times],
                    tau[n],
                    (v_th[n] - v[k][n]) * tau_mem[n] / tau[n],
                    end,
                )
                for n, row in enumerate(w)
            ]

        def times(w0, w1, at):
            first = layer(0, w0, at, source)
            there = [(n, t) for n, t in enumerate(first) if t < mpmath.inf]
            return first, layer(1, w1, [t for _, t in there], [n for n, _ in there])

        def loss(w0, w1, at):
            return mpmath.fsum(
                (scale * t) ** 2
                for row in times(w0, w1, at)
                for scale, t in zip(torch.linspace(0.5, 1.5, len(row), dtype=F64).tolist(), row, strict=True)
                if t < mpmath.inf
            )

        for found, expected in zip((hidden[0].tolist(), output[0].tolist()), times(*given, inputs), strict=True):
            for a, b in zip(found, expected, strict=True):
                assert a == b or abs(a - b) <= 1e-12 * b
        assert hidden.isfinite().any()

        def moved(k, n, m, step):
            changed = [[list(row) for row in w] for w in given]
            changed[k][n][m] += step
            return loss(*changed, inputs)

        for k, n, m in ((0, 0, 0), (0, 1, 3), (0, 3, 2), (1, 0, 1), (1, 1, 3)):
            step = mpmath.mpf(10) ** -12 * TAU_MEM  # of an error of 1e-24
            slope = (moved(k, n, m, step) - moved(k, n, m, -step)) / (2 * step)
            size = float(gradients[f"w_in.{k}"].abs().max())
            assert abs(float(gradients[f"w_in.{k}"][n, m]) - slope) <= 1e-11 * size
        for at in range(len(inputs)):
            step = mpmath.mpf(10) ** -12
            ends = [loss(*given, [t + s * (j == at) for j, t in enumerate(inputs)]) for s in (step, -step)]
            slope = (ends[0] - ends[1]) / (2 * step)
            assert abs(float(gradients["time"][0, at]) - slope) <= 1e-11 * float(gradients["time"].abs().max())


def test_no_first_crossing_is_missed():
    """Of many random layers, slow and grazing crossings among them."""
    spiking = 0
    for seed in range(150):
        net = network(seed, layers=(12,), spread=1.0 + seed % 4, delays=("axon", None)[seed % 2])
        x = spikes(seed, rate=(10.0, 40.0, 150.0)[seed % 3], ties=seed % 5 == 0)
        with torch.no_grad():
            found, expected = (
                adjsnn.solve(net, x, adjoint=rule).first_spike_times() for rule in (SingleSpike(), EventAdjoint())
            )
        assert torch.equal(found.isinf(), expected.isinf()), seed
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10, msg=str(seed))
        spiking += int(found.isfinite().sum())
    assert 2000 < spiking < 9000


@pytest.mark.parametrize("delays", [None, "synapse"])
def test_a_batch_is_its_samples(delays, monkeypatch):
    net, x = network(delays=delays), spikes(batch=7, rate=80.0)
    whole = adjsnn.solve(net, x, adjoint=SingleSpike())
    for part in (200, 1):  # samples in parts of a few, or alone
        monkeypatch.setattr("adjsnn.rules.single_spike.ENTRIES", part)
        parts = adjsnn.solve(net, x, adjoint=SingleSpike())
        assert torch.equal(parts.first_spike_times(), whole.first_spike_times())
    monkeypatch.undo()
    for k in range(7):
        single = adjsnn.solve(net, x[k], adjoint=SingleSpike())
        for layer in range(2):
            assert torch.equal(single.first_spike_times(layer)[0], whole.first_spike_times(layer)[k])


def test_in_parts_gradients_are_the_same(monkeypatch):
    net, x = network(delays="axon"), spikes()
    whole = solved(net, x, SingleSpike())
    monkeypatch.setattr("adjsnn.rules.single_spike.ENTRIES", 150)
    assert_equal(solved(net, x, SingleSpike()), whole, 1e-13)


def test_long_after_the_start_nothing_overflows():
    """The same trial a thousand time constants later, e^{t/τ} being beyond all floats."""
    net = network(refractory=6000.0, tau_mem=1e14 * 6000.0)
    with torch.no_grad():
        for w in net.w_in:
            w.mul_(6000.0 / T_END)
    x = spikes()
    early = adjsnn.solve(net, x, adjoint=SingleSpike()).first_spike_times()
    late = SpikeTrains(x.idx, x.time + 5000.0, 5, 6000.0)
    # Of 5000 ms a rounding is 1e-12.
    torch.testing.assert_close(
        adjsnn.solve(net, late, adjoint=SingleSpike()).first_spike_times() - 5000.0, early, rtol=0, atol=1e-9
    )


def test_float32_is_float64_rounded():
    """Parameters are rounded, the closed form is not."""
    net, x = network(dtype=torch.float32, mean=3.0, spread=0.5), spikes(dtype=torch.float32)
    wide = network(dtype=F64)
    wide.load_state_dict(net.state_dict())
    found = solved(net, x, SingleSpike())
    exact = SpikeTrains(x.idx, x.time.double(), 5, T_END)
    expected = solved(wide, exact, SingleSpike())
    assert found[1][0].dtype == torch.float32
    for a, b in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-7, atol=0.0)
    for name, b in expected[2].items():
        torch.testing.assert_close(found[2][name].double(), b, rtol=1e-5, atol=1e-6 * float(b.abs().max()), msg=name)


@torch.no_grad()
def test_spikes_and_arrivals_at_one_instant():
    """A spike does not hear what arrives at its own instant; one input that spikes twice is two causes."""
    net = network(layers=(1,), n_in=5, tau_syn=5.0, v_th=1.0)
    unit = TAU_MEM / 5.0
    with torch.no_grad():
        net.w_in[0].copy_(torch.tensor([[2.0, -9.0, 0.7, 0.0, 0.0]], dtype=F64) * unit)
    at = 1.0 + 5.0 * torch.tensor(2.0, dtype=F64).log()  # 2 (1 - e^{-s/τ}) = 1
    first = adjsnn.solve(net, _train([(1.0, 0)]), adjoint=SingleSpike()).first_spike_times()
    torch.testing.assert_close(first, at.view(1, 1), rtol=1e-15, atol=0.0)
    for rule in (SingleSpike(), EventAdjoint()):
        alone = adjsnn.solve(net, _train([(1.0, 0)]), adjoint=rule).first_spike_times()
        at_once = adjsnn.solve(net, _train([(1.0, 0), (float(alone), 1)]), adjoint=rule).first_spike_times()
        assert torch.equal(at_once, alone)
    just_before = _train([(1.0, 0), (float(first) - 1e-9, 1)])
    assert bool(adjsnn.solve(net, just_before, adjoint=SingleSpike()).first_spike_times().isinf())
    twice = adjsnn.solve(net, _train([(1.0, 2), (3.0, 2)]), adjoint=SingleSpike()).first_spike_times()
    z = torch.tensor([1.0, 3.0], dtype=F64).div(5.0).exp()
    torch.testing.assert_close(twice, (5.0 * (0.7 * z.sum() / 0.4).log()).view(1, 1), rtol=1e-14, atol=0.0)
    ends = float(first)
    for t_end, expected in ((ends, ends), (ends - 1e-9, float("inf"))):
        sol = adjsnn.solve(net, _train([(1.0, 0)]), t_end=t_end, adjoint=SingleSpike())
        assert float(sol.first_spike_times()) == expected
    none = adjsnn.solve(net, _train([]), adjoint=SingleSpike())
    assert none.stats.layer_spikes == (0,)


def _train(events):
    return SpikeTrains.from_list([events], n_neurons=5, t_max=T_END, dtype=F64)


def test_what_it_does_not_cover_is_refused():
    x = spikes()
    for net, options, message in (
        (network(tau_mem=20.0), {}, "neurons that leak"),
        (network(refractory=5.0), {}, "neurons that may spike twice"),
        (network(recurrent=True), {}, "recurrent weights"),
        (network(bias=0.1), {}, "a bias"),
        (network(bias=True), {}, "bias.*that learns"),
        (network(learn=("weights", "refractory")), {}, "refractory.*that learns"),
        (network(n_out=2), {}, "a readout"),
        (network(), {"ts": [1.0]}, "states at times ts"),
        (network(), {"currents": torch.ones(50, 6, 5, dtype=F64), "dt": 1.0}, "analog currents"),
        (network(), {"dt": 1.0}, "dt for a LIF network"),
        (network(), {"kernels": "fused"}, "no loops"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            adjsnn.solve(net, x, adjoint=SingleSpike(), **options)
    adjsnn.solve(network(), x, adjoint=SingleSpike(), kernels="plain")
    sol = adjsnn.solve(network(), x, adjoint=SingleSpike())
    with pytest.raises(ConfigurationError, match="a loss of the final state"):
        sol.final_state[0].v.sum().backward()
    with pytest.raises(ConfigurationError, match="create_graph"):
        torch.autograd.grad(sol.spike_times(0).sum(), [sol._layers[0].w_in], create_graph=True)


def test_a_charge_that_just_reaches_the_threshold_causes_no_spike():
    """It is all there only in the limit; what comes then is heard at once."""
    net = network(layers=(1,), tau_syn=1.0, v_th=1.0)
    with torch.no_grad():
        net.w_in[0].fill_(TAU_MEM)
    assert bool(adjsnn.solve(net, _train([(0.0, 0)]), adjoint=SingleSpike()).first_spike_times().isinf())
    sol = adjsnn.solve(net, _train([(0.0, 0), (45.0, 1)]), adjoint=SingleSpike())
    assert float(sol.first_spike_times().detach()) == 45.0
    sol.first_spike_times().sum().backward()
    assert bool(net.w_in[0].grad.isfinite().all())


def test_changes_of_the_network_do_not_reach_a_solution():
    net, x = network(), spikes()
    expected = solved(net, x, SingleSpike())[2]["w_in.0"]
    sol = adjsnn.solve(net, x, adjoint=SingleSpike(), y0=started(net, 6))
    first = [sol.first_spike_times(k) for k in range(2)]
    loss = sum((torch.linspace(0.5, 1.5, t.numel(), dtype=F64).view(t.shape) * t)[t.isfinite()].square().sum() for t in first)
    w = net.w_in[0].detach().clone()
    with torch.no_grad():
        net.w_in[0].mul_(3.0)
        x.time.fill_(0.0)
    loss.backward()
    assert torch.equal(net.w_in[0].grad, expected)
    assert not torch.equal(net.w_in[0].detach(), w)


def test_gradcheck_takes_it():
    net, x = network(layers=(4, 2)), spikes(batch=2)

    def loss(sol):
        return sol.spike_times(-1).square().sum() + sol.spike_times(0).sum()

    report = adjsnn.gradcheck(net, x, loss, adjoint=SingleSpike())  # raises where a gradient is not that of differences
    assert {row.name for row in report.rows} >= {"w_in.1", "tau_syn.0", "v_th.0", "y0[0].v", "y0[1].i", "time"}
