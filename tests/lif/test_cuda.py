"""Loops for a GPU give what the plain code gives: on the machine's GPU where there is one, else in numba's simulator."""

from types import SimpleNamespace

import pytest
import torch
from lif_networks import RATIOS, random_lif, random_spikes
from torch import Tensor

import adjsnn
from adjsnn import ConfigurationError, EventError, SpikeTrains
from adjsnn.lif import engine
from adjsnn.lif.cuda import feedforward_run, recurrent_run, tensors
from adjsnn.numerics import device

pytestmark = pytest.mark.usefixtures("simulator")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS, DT = 6, 5.0
PROBES = [0.0, 5.0, 18.0, 30.0]  # one of them where a step of the currents begins, and both ends
FEEDFORWARD, RECURRENT = ["per_axon", "per_synapse", "no_delay"], ["recurrent", "recurrent_no_delay"]
KINDS = FEEDFORWARD + RECURRENT
# Both bodies compute in float64 with the same formulas and round in other order; slow crossings amplify that.
ROUNDING = 1e-12


def network(kind: str, ratio: float = 4.0, **options) -> adjsnn.LIFNetwork:
    return random_lif(
        5,
        ratio=ratio,
        recurrent="recurrent" in kind,
        per_synapse=kind == "per_synapse",
        delayed="no_delay" not in kind,
        **options,
    )


def on_device(lif: adjsnn.LIFNetwork, kernels: str) -> adjsnn.LIFNetwork:
    return lif.to(DEVICE) if kernels == "cuda" else lif.cpu()


def results(lif: adjsnn.LIFNetwork, x: SpikeTrains, kernels: str, currents: Tensor | None = None) -> dict[str, Tensor]:
    """Spikes, recorded states and the gradients of a loss of all of them by everything, on the CPU."""
    lif = on_device(lif, kernels)
    where = lif.w_in[0].device
    leaves = {"time": x.time.to(where, copy=True).requires_grad_()}
    options = {"t_end": STEPS * DT}
    if currents is not None:
        leaves["u"] = currents.to(where, copy=True).requires_grad_()
        options = {"currents": leaves["u"], "dt": DT}
    inputs = SpikeTrains(x.idx.to(where), leaves["time"], x.n_neurons, x.t_max)
    y0 = [adjsnn.LIFState(state.v - 0.1, state.i + 0.2) for state in lif.initial_state(x.batch)]
    for k, state in enumerate(y0):
        leaves |= {f"v0.{k}": state.v.requires_grad_(), f"i0.{k}": state.i.requires_grad_()}
    sol = adjsnn.solve(lif, inputs, ts=PROBES, y0=y0, kernels=kernels, **options)
    assert sol.stats.kernel == kernels
    found = {}
    for k in range(len(lif.layers)):
        found |= {f"idx.{k}": sol.layer_spikes[k].idx, f"spikes.{k}": sol.spike_times(k), f"speeds.{k}": sol.spike_speeds(k)}
        found |= {f"v.{k}": sol.v[k], f"i.{k}": sol.i[k]}
    loss = sum(
        1e-3 * sol.spike_times(k).square().sum() + (sol.v[k].sin() + sol.i[k].cos()).sum() for k in range(len(lif.layers))
    )
    leaves |= dict(lif.named_parameters())
    found |= dict(zip((f"d {name}" for name in leaves), torch.autograd.grad(loss, list(leaves.values())), strict=True))
    return {name: tensor.detach().cpu() for name, tensor in found.items()}


def agree(found: dict[str, Tensor], expected: dict[str, Tensor], rel: float = ROUNDING) -> None:
    assert found.keys() == expected.keys()
    for name, y in expected.items():
        x = found[name]
        assert (x.shape, x.dtype) == (y.shape, y.dtype), name
        if name.startswith("idx"):
            assert torch.equal(x, y), name
        else:
            assert float((x - y).abs().max()) <= rel * float(y.abs().max()), name


def random_currents(batch: int = 2) -> Tensor:
    return 0.2 * torch.randn(STEPS, batch, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.every(19)
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("analog", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_they_agree_with_the_plain_code(kind, analog, ratio):
    lif, x = network(kind, ratio), random_spikes(5, batch=2)
    expected, found = (results(lif, x, body, random_currents() if analog else None) for body in ("plain", "cuda"))
    assert min((expected[f"idx.{k}"] >= 0).sum() for k in range(2)) > 15
    assert all(float(y.abs().max()) > 0.0 for name, y in expected.items() if name.startswith("d "))
    agree(found, expected)


@pytest.mark.every(3)
@pytest.mark.parametrize("kind", KINDS)
def test_events_at_one_instant_come_in_the_same_order(kind):
    """Inputs, delays, edges and probes at multiples of 5 ms: arrivals first, then changes of the current, then probes."""
    lif, x = network(kind), random_spikes(5, batch=2)
    if "no_delay" not in kind:
        with torch.no_grad():
            for d in lif.delays:
                d.copy_(5.0 * d.round())
    x = SpikeTrains(x.idx, 5.0 * (x.time / 5.0).round(), x.n_neurons, x.t_max)
    expected, found = (results(lif, x, body, random_currents()) for body in ("plain", "cuda"))
    agree(found, expected)


def test_equal_neurons_spike_and_are_heard_in_their_order(monkeypatch):
    """All at one instant, with refractory times and delays that end at one instant again."""
    monkeypatch.setattr(recurrent_run, "WIDTH", 4)
    lif = adjsnn.LIFNetwork(
        1, 6, recurrent=True, refractory=3.0, rec_delays=3.0, learn=("weights", "refractory"), dtype=torch.float64
    )
    with torch.no_grad():
        lif.w_in[0].fill_(9.0)
        lif.w_rec[0].copy_(torch.linspace(-1.0, 3.0, 36, dtype=torch.float64).view(6, 6))
    x = SpikeTrains.from_list([[(0.0, 0), (5.0, 0)]], n_neurons=1, t_max=60.0, dtype=torch.float64)
    found = []
    for body in ("plain", "cuda"):
        net = on_device(lif, body)
        sol = adjsnn.solve(net, x.to(net.w_in[0].device), t_end=20.0, ts=[10.0], kernels=body)
        (sol.spike_times().square().sum() + sol.v[0].sum()).backward()
        grads = [p.grad.cpu() for p in net.parameters() if p.requires_grad]
        found.append([*(y.detach().cpu() for y in (sol.layer_spikes[0].idx, sol.spike_times(), sol.i[0])), *grads])
        net.zero_grad()
    assert found[0][0][0, :6].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=ROUNDING, atol=0.0)


def test_room_grows_until_every_spike_has_one():
    """One neuron fires more often than the first pass has room for, the others less."""
    lif, x = network("per_axon"), random_spikes(5, batch=2)
    with torch.no_grad():
        lif.bias[0][2], lif.refractory[0][2] = 30.0, 0.0
        lif.w_in[1][:, 2] = 0.0
    expected, found = (results(lif, x, body) for body in ("plain", "cuda"))
    counts = expected["idx.0"].flatten()[expected["idx.0"].flatten() >= 0].bincount()
    assert counts[2] > 2 * (feedforward_run.ROOM + 1)
    assert counts[[0, 1, 3, 4, 5]].max() <= 2 * feedforward_run.ROOM
    agree(found, expected)


@pytest.mark.every(3)
@pytest.mark.parametrize(("kind", "room"), [("per_axon", 1), ("per_axon", 2), ("recurrent", 1)])
def test_what_has_no_room_in_a_first_pass_is_written_nowhere(kind, room, monkeypatch):
    lif, x = network(kind), random_spikes(5, batch=1)
    expected = results(lif, x, "cuda")
    for module in (feedforward_run, recurrent_run):
        monkeypatch.setattr(module, "ROOM", room)
    assert (expected["idx.0"] >= 0).sum() > 6 * room
    found = results(lif, x, "cuda")
    assert all(torch.equal(found[name], y) for name, y in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["per_synapse", "recurrent"])
def test_samples_are_swept_together_or_apart(kind, monkeypatch):
    lif, x = network(kind), random_spikes(5, batch=2)
    expected = results(lif, x, "cuda", random_currents())
    parts, whole = [], tensors.sweeps
    for module in (feedforward_run, recurrent_run):
        monkeypatch.setattr(module, "sweeps", lambda *given: (parts.append(p.samples) or p for p in whole(*given)))
    monkeypatch.setattr(tensors, "PART", 1)
    found = results(lif, x, "cuda", random_currents())
    assert parts == [slice(0, 1), slice(1, 2)] * 2
    agree(found, expected, 1e-14)  # sums of samples in other groups
    assert torch.equal(found["d time"], expected["d time"])


@pytest.mark.every(2)
@pytest.mark.parametrize("kind", ["per_axon", "recurrent"])
def test_a_batch_is_its_samples(kind):
    lif, x = network(kind), random_spikes(5, batch=2)
    whole = results(lif, x, "cuda")
    parts = [results(lif, SpikeTrains(x.idx[b : b + 1], x.time[b : b + 1], x.n_neurons, x.t_max), "cuda") for b in range(2)]
    for name in ("v.0", "v.1", "i.1", "d v0.0", "d i0.1", "d time"):
        assert torch.equal(whole[name], torch.cat([part[name] for part in parts], 1 if name[1] == "." else 0)), name
    for k in range(2):
        assert torch.equal(whole[f"spikes.{k}"], torch.cat([part[f"spikes.{k}"] for part in parts]))
    summed = {name: sum(part[name] for part in parts) for name in whole if name.startswith(("d w_", "d tau", "d delays"))}
    agree({name: whole[name] for name in summed}, summed, 1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("width", [8, 4])
def test_neurons_share_threads_or_have_one_each(width, monkeypatch):
    """What is summed over threads rounds in another order."""
    lif, x = network("recurrent"), random_spikes(5, batch=1)
    expected = results(lif, x, "cuda")
    monkeypatch.setattr(recurrent_run, "WIDTH", width)
    found = results(lif, x, "cuda")
    assert torch.equal(found["spikes.1"], expected["spikes.1"])
    agree(found, expected)


def test_float32_is_float64_rounded():
    lif, x = network("per_axon"), random_spikes(5, batch=1)
    single = network("per_axon").float()
    lif = network("per_axon")
    for p, q in zip(lif.parameters(), single.parameters(), strict=True):
        p.data.copy_(q.data)
    x32 = SpikeTrains(x.idx, x.time.float(), x.n_neurons, x.t_max)
    found, expected = results(single, x32, "cuda"), results(single, x32, "plain")
    assert found["spikes.0"].dtype == found["d w_in.0"].dtype == torch.float32
    agree(found, expected, 1e-6)


def test_layers_without_a_spike_and_samples_without_an_input():
    lif = adjsnn.LIFNetwork(
        2, (3, 2), dtype=torch.float64, learn=("weights", "tau_mem"), generator=torch.Generator().manual_seed(1)
    )
    x = SpikeTrains.from_list([[], [(1.0, 0), (2.0, 1)], []], n_neurons=2, t_max=20.0, dtype=torch.float64)
    nothing = SpikeTrains.from_list([[], []], n_neurons=2, t_max=20.0, dtype=torch.float64)
    with torch.no_grad():
        lif.w_in[0][0] = 9.0
        lif.w_in[1].zero_()
    for inputs, spikes in ((x, True), (nothing, False)):
        found = []
        for body in ("plain", "cuda"):
            net = on_device(lif, body)
            sol = adjsnn.solve(net, inputs.to(net.w_in[0].device), ts=[10.0], kernels=body)
            assert (sol.stats.spikes[0] > 0, sol.stats.spikes[1]) == (spikes, 0)
            leaves = [p for p in net.parameters() if p.requires_grad]
            loss = sol.v[0].sum() + sol.v[1].sum() + sol.spike_times(0).sum()
            found.append(
                [sol.v[0], sol.spike_times(0), *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)]
            )
        for a, b in zip(*found, strict=True):
            assert torch.allclose(a.detach().cpu(), b.detach().cpu(), rtol=ROUNDING, atol=0.0)


@pytest.mark.every(2)
@pytest.mark.parametrize("kind", ["per_axon", "recurrent"])
def test_a_neuron_that_runs_away_is_named(kind):
    lif, x = on_device(network(kind), "cuda"), random_spikes(5, batch=1)
    with torch.no_grad():
        lif.bias[1][1] = 5.0
    x = x.to(DEVICE)
    most = max(adjsnn.solve(lif, x, kernels="cuda").spike_counts(1)[:, 1].tolist())
    assert adjsnn.solve(lif, x, max_spikes=most, kernels="cuda").stats.spikes[1] > most
    with pytest.raises(EventError, match=f"more than {most - 1} spikes of neuron 1 of layer 1 in sample 0 by"):
        adjsnn.solve(lif, x, max_spikes=most - 1, kernels="cuda")


@pytest.mark.every(2)
@pytest.mark.parametrize("kind", ["per_axon", "recurrent"])
def test_a_spike_without_speed_has_no_derivative(kind):
    """No network is known that rounds to one, so its stored current is made that of a spike with dv/dt = 0."""
    lif, x = on_device(network(kind), "cuda"), random_spikes(5, batch=2).to(DEVICE)
    sol = adjsnn.solve(lif, x, t_end=30.0, kernels="cuda")
    run = sol._results[0].run
    first = int(run.spikes.first[1])  # in the second sample
    neuron = int(run.spikes.neuron[first + 4])
    run.current[first + 4] = float(lif.v_th[0][neuron].detach() - lif.bias[0][neuron].detach())
    with pytest.raises(EventError, match=f"the spike of neuron {neuron} of layer 0 in sample 1"):
        sol.spike_times(0).sum().backward()


@pytest.mark.parametrize("kind", ["per_axon", "recurrent"])
def test_a_sweep_changes_nothing_that_it_is_given(kind, monkeypatch):
    """Errors of spikes grow in a copy of their cotangents."""
    met, body = [], engine.BODIES["cuda"]

    def backward(*given):
        before = given[5].time.clone()
        met.append((before, given[5].time))
        return body.backward(*given)

    monkeypatch.setitem(engine.BODIES, "cuda", body._replace(backward=backward))
    sol = adjsnn.solve(on_device(network(kind), "cuda"), random_spikes(5, batch=1).to(DEVICE), t_end=20.0, kernels="cuda")
    sol.spike_times(0).sum().backward()
    ((before, after),) = met
    assert len(before) > 5
    assert torch.equal(before, after)


def test_what_is_kept_of_a_spike_is_small():
    """Beside it a number for each sample and neuron; of a recurrent layer also a log, with three entries of 24 bytes for it."""
    for kind in ("per_axon", "recurrent"):
        sol = adjsnn.solve(on_device(network(kind), "cuda"), random_spikes(5, batch=2).to(DEVICE), t_end=20.0, kernels="cuda")
        run = sol._results[0].run
        spikes = len(run.spikes.time)
        assert spikes > 10
        if kind == "recurrent":
            entries = len(run.record.log.time)
            assert entries <= 3 * spikes + 2 * (12 + 1)  # of input spikes, and the end
            assert run.stored_bytes == 32 * spikes + 24 * entries + 8 * 2 * (2 + 1) + 8 * 2 * 6
        else:
            assert run.stored_bytes == 48 * spikes + 8 * (2 + 1) + 8 * (2 * 6 + 1)


class OnGpu(SimpleNamespace):
    """A layer as far as `choose` looks at it, on a GPU that need not be there."""

    def __init__(self, kind: str = "cuda", w_rec: Tensor | None = None, delays: Tensor | None = None) -> None:
        super().__init__(w_in=SimpleNamespace(device=torch.device(kind)), w_rec=w_rec, delays=delays, rec_delays=None)


def test_a_network_on_a_gpu_is_solved_there(monkeypatch):
    monkeypatch.setattr(device, "unusable", lambda: None)
    body, ran = engine.choose("auto", [OnGpu()])
    assert (body.name, ran) == ("cuda", ("cuda", "the cuda loops cover this network"))


def test_without_what_it_takes_the_host_solves_it_and_says_why(monkeypatch):
    monkeypatch.setattr(device, "SIMULATED", False)
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    device.unusable.cache_clear()
    body, ran = engine.choose("auto", [OnGpu()])
    device.unusable.cache_clear()
    assert body.name == ran.kernel == "fused"
    assert ran.reason.startswith("the fused loops cover this network, on the host: numba-cuda is not installed (pip install")
    monkeypatch.setattr(device, "unusable", lambda: None)
    body, ran = engine.choose("auto", [OnGpu(), OnGpu(w_rec=torch.zeros(1, 1), delays=torch.zeros(1, 1))])
    assert ran.reason == (
        "the fused loops cover this network, on the host: recurrent layers with delays per synapse have no loops for a GPU"
    )


def test_what_cannot_run_there_is_refused(monkeypatch):
    with pytest.raises(ConfigurationError, match='kernels="cuda", but recurrent layers with delays per synapse .*Try'):
        adjsnn.solve(on_device(random_lif(5), "cuda"), random_spikes(5).to(DEVICE), kernels="cuda")
    with pytest.raises(ConfigurationError, match="the network is on the device meta, not on a CUDA device"):
        engine.choose("cuda", [OnGpu("meta")])
    monkeypatch.setattr(device, "SIMULATED", False)
    with pytest.raises(ConfigurationError, match='kernels="cuda", but the network is on the CPU, not on a CUDA device'):
        adjsnn.solve(network("per_axon").cpu(), random_spikes(5), kernels="cuda")


def test_a_network_on_the_cpu_is_not_solved_in_a_simulator_unasked():
    sol = adjsnn.solve(network("per_axon"), random_spikes(5), t_end=10.0)
    assert (sol.stats.kernel, sol.stats.kernel_reason) == ("fused", "the fused loops cover this network")


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
@pytest.mark.parametrize(("kind", "layers"), [("per_synapse", (60, 40)), ("recurrent", (300, 40))])
def test_the_same_bits_every_time_on_any_stream(kind, layers):
    lif, x = network(kind, layers=layers), random_spikes(5, batch=50)
    first = results(lif, x, "cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        again = results(lif, x, "cuda")
    assert all(torch.equal(again[name], y) for name, y in first.items())
    assert engine.choose("auto", lif.tensors())[0].name == "cuda"
