"""Loops for a GPU give what the plain code gives: on the machine's GPU where there is one, else in numba's simulator."""

from types import SimpleNamespace

import pytest
import torch
from lif_networks import RATIOS, random_lif, random_spikes
from torch import Tensor

import adjsnn
from adjsnn import ConfigurationError, EventError, SpikeTrains
from adjsnn.lif import engine
from adjsnn.lif.cuda import device, loops

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS, DT = 8, 5.0
PROBES = [0.0, 5.0, 18.0, 40.0]  # one of them where a step of the currents begins, and both ends
KINDS = ["per_axon", "per_synapse", "no_delay"]
# Both bodies compute in float64 with the same formulas and round in other order; slow crossings amplify that.
ROUNDING = 1e-12


def network(kind: str, ratio: float = 4.0, **options) -> adjsnn.LIFNetwork:
    return random_lif(5, ratio=ratio, recurrent=False, per_synapse=kind == "per_synapse", delayed=kind != "no_delay", **options)


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


def random_currents(batch: int = 3) -> Tensor:
    return 0.2 * torch.randn(STEPS, batch, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.every(5)
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("analog", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_they_agree_with_the_plain_code(kind, analog, ratio):
    lif, x = network(kind, ratio), random_spikes(5)
    expected, found = (results(lif, x, body, random_currents() if analog else None) for body in ("plain", "cuda"))
    assert min((expected[f"idx.{k}"] >= 0).sum() for k in range(2)) > 30
    assert all(float(y.abs().max()) > 0.0 for name, y in expected.items() if name.startswith("d "))
    agree(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_events_at_one_instant_come_in_the_same_order(kind):
    """Inputs, delays, edges and probes at multiples of 5 ms: arrivals first, then changes of the current, then probes."""
    lif, x = network(kind), random_spikes(5)
    if kind != "no_delay":
        with torch.no_grad():
            for d in lif.delays:
                d.copy_(5.0 * d.round())
    x = SpikeTrains(x.idx, 5.0 * (x.time / 5.0).round(), x.n_neurons, x.t_max)
    expected, found = (results(lif, x, body, random_currents()) for body in ("plain", "cuda"))
    agree(found, expected)


def test_room_grows_until_every_spike_has_one():
    """One neuron fires more often than the first pass has room for, the others less."""
    lif, x = network("per_axon"), random_spikes(5)
    with torch.no_grad():
        lif.bias[0][2], lif.refractory[0][2] = 30.0, 0.0
        lif.w_in[1][:, 2] = 0.0
    expected, found = (results(lif, x, body) for body in ("plain", "cuda"))
    counts = expected["idx.0"].flatten()[expected["idx.0"].flatten() >= 0].bincount()
    assert counts[2] > 3 * (loops.ROOM + 1)
    assert counts[[0, 1, 3, 4, 5]].max() <= 3 * loops.ROOM
    agree(found, expected)


@pytest.mark.parametrize("room", [1, 2])
def test_no_spike_is_lost_at_the_edge_of_a_room(room, monkeypatch):
    """What has no room in the first pass is written nowhere in it, behind the room of the last neuron neither."""
    lif, x = network("per_axon"), random_spikes(5)
    expected = results(lif, x, "cuda")
    monkeypatch.setattr(loops, "ROOM", room)
    found = results(lif, x, "cuda")
    assert all(torch.equal(found[name], y) for name, y in expected.items())


def test_samples_are_swept_together_or_apart(monkeypatch):
    lif, x = network("per_synapse"), random_spikes(5)
    expected = results(lif, x, "cuda", random_currents())
    parts, whole = [], loops._parts
    monkeypatch.setattr(loops, "_parts", lambda *given: (parts.append(p[1]) or p for p in whole(*given)))
    monkeypatch.setattr(loops, "PART", 1)
    found = results(lif, x, "cuda", random_currents())
    assert parts == [slice(b, b + 1) for b in range(3)] * 2
    agree(found, expected, 1e-14)  # sums of samples in other groups
    assert torch.equal(found["d time"], expected["d time"])


def test_a_batch_is_its_samples():
    lif, x = network("per_axon"), random_spikes(5)
    whole = results(lif, x, "cuda")
    parts = [results(lif, SpikeTrains(x.idx[b : b + 1], x.time[b : b + 1], x.n_neurons, x.t_max), "cuda") for b in range(3)]
    for name in ("v.0", "v.1", "i.1", "d v0.0", "d i0.1", "d time"):
        assert torch.equal(whole[name], torch.cat([part[name] for part in parts], whole[name].shape.index(3))), name
    for k in range(2):
        assert torch.equal(whole[f"spikes.{k}"], torch.cat([part[f"spikes.{k}"] for part in parts]))
    summed = {name: sum(part[name] for part in parts) for name in whole if name.startswith(("d w_in", "d tau", "d delays"))}
    agree({name: whole[name] for name in summed}, summed, 1e-14)


def test_float32_is_float64_rounded():
    lif, x = network("per_axon"), random_spikes(5)
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


def test_a_neuron_that_runs_away_is_named():
    lif, x = on_device(network("per_axon"), "cuda"), random_spikes(5)
    with torch.no_grad():
        lif.bias[1][1] = 5.0
    x = x.to(DEVICE)
    most = max(adjsnn.solve(lif, x, kernels="cuda").spike_counts(1)[:, 1].tolist())
    assert adjsnn.solve(lif, x, max_spikes=most, kernels="cuda").stats.spikes[1] > most
    with pytest.raises(EventError, match=f"more than {most - 1} spikes of neuron 1 of layer 1 in sample [012] by"):
        adjsnn.solve(lif, x, max_spikes=most - 1, kernels="cuda")


def test_a_spike_without_speed_has_no_derivative():
    """No network is known that rounds to one, so its stored current is made that of a spike with dv/dt = 0."""
    lif, x = on_device(network("per_axon"), "cuda"), random_spikes(5).to(DEVICE)
    sol = adjsnn.solve(lif, x, kernels="cuda")
    run = sol._results[0].run
    first = int(run.spikes.first[1])  # in the second sample
    neuron = int(run.spikes.neuron[first + 4])
    run.current[first + 4] = float(lif.v_th[0][neuron].detach() - lif.bias[0][neuron].detach())
    with pytest.raises(EventError, match=f"the spike of neuron {neuron} of layer 0 in sample 1"):
        sol.spike_times(0).sum().backward()


def test_what_is_kept_of_a_spike_is_small():
    sol = adjsnn.solve(on_device(network("per_axon"), "cuda"), random_spikes(5).to(DEVICE), kernels="cuda")
    run = sol._results[0].run
    assert run.stored_bytes == 48 * len(run.spikes.time) + 8 * (3 + 1) + 8 * (3 * 6 + 1)


class OnGpu(SimpleNamespace):
    """A layer as far as `choose` looks at it, on a GPU that need not be there."""

    def __init__(self, kind: str = "cuda", w_rec: Tensor | None = None) -> None:
        super().__init__(w_in=SimpleNamespace(device=torch.device(kind)), w_rec=w_rec)


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
    body, ran = engine.choose("auto", [OnGpu(), OnGpu(w_rec=torch.zeros(1, 1))])
    assert ran == ("fused", "the fused loops cover this network, on the host: recurrent layers have no loops for a GPU")


def test_what_cannot_run_there_is_refused(monkeypatch):
    with pytest.raises(ConfigurationError, match='kernels="cuda", but recurrent layers have no loops for a GPU.*Try'):
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
def test_the_same_bits_every_time_on_any_stream():
    lif, x = network("per_synapse", layers=(60, 40)), random_spikes(5, batch=50)
    first = results(lif, x, "cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        again = results(lif, x, "cuda")
    assert all(torch.equal(again[name], y) for name, y in first.items())
    assert engine.choose("auto", lif.tensors())[0].name == "cuda"
