"""Local errors: a layer learns as backpropagation would have it learn alone, and nothing goes to the layers below."""

from dataclasses import replace

import pytest
import torch
from test_alignment import close, three_layers
from test_clocked import EVERYTHING, F64, network, spikes

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork
from adjsnn.losses import local_errors
from adjsnn.rules import FeedbackAlignment, LocalErrors, SurrogateBPTT, Triangle

SHAPE, DT = Triangle(2.0), 0.5


def target(sol) -> torch.Tensor:
    read = sol.local_readout(0)
    return torch.linspace(-0.3, 0.3, read.numel(), dtype=F64).view(read.shape).sin().to(read)


def gradients(net, value):
    leaves = {name: p for name, p in net.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def solved(net, x, rule, kernels="auto"):
    return adjsnn.solve(net, x, dt=DT, adjoint=rule, kernels=kernels)


def alone(net: LIFNetwork, layer: int, recurrent: bool) -> LIFNetwork:
    """A layer as a network of its own, fed with the spikes of the layer below, which arrive a step later."""
    one = LIFNetwork(
        net.fan_in[layer], net.layers[layer], recurrent, delays=DT if layer else None, learn=net.learn, dtype=F64
    )  # fmt: skip
    with torch.no_grad():
        for name in ("w_in", "w_rec", "bias", "tau_mem", "tau_syn", "v_th", "v_reset"):
            if getattr(one, name)[0] is not None:
                getattr(one, name)[0].copy_(getattr(net, name)[layer])
    return one


@pytest.mark.every(5)
@pytest.mark.parametrize("kernels", ["fused", "plain"])
@pytest.mark.parametrize("way", ["exact", "cut", "none"])
@pytest.mark.parametrize("through", [False, True])
def test_each_layer_learns_as_if_it_were_alone(through, way, kernels):
    """Judged by SurrogateBPTT, or where W_rec is cut by the rule that cuts it alone, of the layer over frozen spikes."""
    recurrent = way != "none"
    net, x = three_layers(recurrent), spikes()
    options = {"through_reset": through}
    sol = solved(net, x, LocalErrors(SHAPE, recurrent="exact" if way == "exact" else "cut", **options), kernels)
    found = gradients(net, local_errors(sol, target(sol), "squared"))
    for k in range(3):
        one, given = alone(net, k, recurrent), x if k == 0 else sol.layer_spikes[k - 1]
        rule = FeedbackAlignment(SHAPE, recurrent="cut", **options) if way == "cut" else SurrogateBPTT(SHAPE, **options)
        s = solved(one, given, rule, kernels).spikes_on_grid(0)
        assert torch.equal(s, sol.spikes_on_grid(k))
        assert s.sum() > 20
        error = torch.nn.functional.linear(s, sol._local[k]) - target(sol)
        expected = gradients(one, 0.5 * error.square().sum() / x.batch)
        expected = {name.replace(".0", f".{k}"): value for name, value in expected.items()}
        assert all(bool(value.any()) for value in expected.values())
        close(found, expected)


def by_hand(net: LIFNetwork, x, matrices, wanted):
    """(5.1) and (5.6) written out on torch's tape, spikes detached between layers and in W_rec; the loss of each layer."""
    sample, k = (x.idx >= 0).nonzero(as_tuple=True)
    arriving = torch.zeros(len(wanted), x.batch, net.n_in, dtype=F64)
    place = ((x.time[sample, k] / DT).round().long(), sample, x.idx[sample, k])
    source, losses = arriving.index_put_(place, torch.ones((), dtype=F64), accumulate=True), []
    for k, n in enumerate(net.layers):
        tau_m, tau_s, w_rec = net.tau_mem[k], net.tau_syn[k], net.w_rec[k]
        alpha, beta = torch.exp(-DT / tau_s), torch.exp(-DT / tau_m)
        kappa = tau_s / (tau_m - tau_s) * (beta - alpha)
        v = i = torch.zeros(x.batch, n, dtype=F64)
        sent, loss = [], 0.0
        for step in range(len(wanted)):
            lag = 0 if k == 0 else 1
            i = i + (source[step - lag].detach() @ net.w_in[k].T if step >= lag else 0.0)
            i = i + (sent[-1].detach() @ w_rec.T if w_rec is not None and sent else 0.0)
            s = SHAPE.fire(v - net.v_th[k])
            v = torch.where(s > 0, net.v_reset[k], v)
            loss = loss + 0.5 * (s @ matrices[k].T - wanted[step]).square().sum() / x.batch
            v, i = net.bias[k] + beta * (v - net.bias[k]) + kappa * i, alpha * i
            sent.append(s)
        source = sent
        losses.append(loss)
    return losses


@pytest.mark.parametrize("recurrent", [False, True])
def test_against_the_program_written_out_by_hand(recurrent):
    net, x = network(recurrent, seed=1, bias=0.3), spikes(1)
    sol = solved(net, x, LocalErrors(SHAPE, classes=4, seed=3))
    wanted = target(sol)
    assert sol.local_readout(1).shape == (121, 4, 4)
    losses = by_hand(net, x, sol._local, wanted)
    net.w_out.requires_grad_(False)
    for k, expected in enumerate(losses):
        found = 0.5 * (sol.local_readout(k) - wanted).square().sum() / x.batch
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)
        of_rule, of_tape = (gradients(net, value) for value in (found, expected))
        close(of_rule, of_tape)
        for name, value in of_rule.items():  # its own layer, all of it, and exactly nothing of any other
            own = name.endswith(f".{k}")
            assert bool(value.any()) == own, name
    assert set(EVERYTHING) - {"weights"} <= {name.partition(".")[0] for name in of_rule}


@pytest.mark.parametrize("recurrent", ["cut", "exact"])
def test_loops_and_tape_agree(recurrent):
    net, x = three_layers(n_out=2), spikes()
    found = []
    for kernels in ("fused", "plain"):
        sol = solved(net, x, LocalErrors(SHAPE, recurrent=recurrent), kernels)
        assert sol.stats.kernel == kernels
        found.append(gradients(net, local_errors(sol, target(sol))))
    close(*found)


def test_a_loss_of_the_output_reaches_the_last_layer_alone():
    for n_out in (None, 2):
        net, x = three_layers(n_out=n_out), spikes()
        sol = solved(net, x, LocalErrors(SHAPE, recurrent="exact"))
        assert sol.local_readout(0).shape[2] == (n_out or 3)
        of_output = [
            gradients(net, (y.spike_count() if n_out is None else y.readout).square().sum())
            for y in (sol, solved(net, x, SurrogateBPTT(SHAPE)))
        ]
        last = [name for name in of_output[0] if name.endswith(".2") or name == "w_out"]
        close(*of_output, last)
        assert not any(bool(value.any()) for name, value in of_output[0].items() if name not in last)


def test_matrices_are_drawn_from_the_seed_or_given():
    net, x = three_layers(), spikes()
    sol = solved(net, x, LocalErrors(classes=5, scale=0.5))
    assert [tuple(g.shape) for g in sol._local] == [(5, 10), (5, 8), (5, 3)]
    for g, n in zip(sol._local, net.layers, strict=True):
        assert float(g.abs().max()) <= 0.5 / n**0.5
        assert float(g.min()) < 0.0 < float(g.max())
    again, other = (solved(net, x, LocalErrors(classes=5, seed=seed)) for seed in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(sol._local, again._local, strict=True))
    assert not torch.equal(sol._local[0], other._local[0])
    given = [torch.randn(2, n, dtype=F64) for n in net.layers]
    kept = [g.clone() for g in given]
    rule = LocalErrors(matrices=given)
    for g in given:
        g.zero_()
    read = solved(net, x, rule).local_readout(-1)
    torch.testing.assert_close(read, sol.spikes_on_grid(-1) @ kept[-1].T)
    single = three_layers(dtype=torch.float32)
    in_single = solved(single, x.to(dtype=torch.float32), LocalErrors(classes=5))
    assert all(torch.equal(a.float(), b) for a, b in zip(sol._local, in_single._local, strict=True))


def test_single_precision_and_single_samples():
    net, x = three_layers(), spikes()
    single = three_layers(dtype=torch.float32)
    with torch.no_grad():
        for p, q in zip(single.parameters(), net.parameters(), strict=True):
            p.copy_(q)
    whole = solved(net, x, LocalErrors(SHAPE))
    wanted = target(whole)
    expected = gradients(net, local_errors(whole, wanted))
    low = gradients(single, local_errors(solved(single, x.to(dtype=torch.float32), LocalErrors(SHAPE)), wanted))
    for name, value in expected.items():  # spikes at a rounding of the threshold may differ; none does here
        assert float((low[name].double() - value).norm() / value.norm()) < 1e-3, name
    parts = [
        gradients(net, local_errors(solved(net, x[k : k + 1], LocalErrors(SHAPE)), wanted[:, k : k + 1]))
        for k in range(x.batch)
    ]
    close({name: sum(part[name] for part in parts) / x.batch for name in expected}, expected)


def test_the_loss_is_the_sum_that_it_says():
    net, x = three_layers(False), spikes()
    sol = solved(net, x, LocalErrors(SHAPE, scale=5.0))
    wanted = target(sol)
    errors = torch.stack([sol.local_readout(k) - wanted for k in range(3)]).detach()
    assert float(errors.abs().max()) > 1.0  # both branches of the smooth one
    small = errors.abs() < 1.0
    smooth = torch.where(small, 0.5 * errors.square(), errors.abs() - 0.5)
    for kind, each in (("squared", 0.5 * errors.square()), ("smooth_l1", smooth)):
        for burn_in, first in ((0.0, 0), (10.0, 20), (10.2, 21), (60.0, 120)):
            found = local_errors(sol, wanted, kind, burn_in=burn_in)
            torch.testing.assert_close(found, each[:, first:].sum() / x.batch)
    labels = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0]), 3)
    constant = labels.double().expand(121, 4, 3)
    torch.testing.assert_close(local_errors(sol, labels), local_errors(sol, constant))


def test_it_learns():
    """A rule for what it is for: the loss of every layer falls, each by its own error."""
    net, x = three_layers(seed=2), spikes(2, batch=8)
    labels = torch.nn.functional.one_hot(torch.arange(8) % 2, 2).double()
    optimiser, losses, rule = torch.optim.Adam(net.parameters(), 0.02), [], LocalErrors(classes=2, scale=3.0)
    for _ in range(40):
        optimiser.zero_grad()
        sol = adjsnn.solve(net, x, dt=DT, adjoint=rule)
        local_errors(sol, 0.1 * labels, "squared").backward()
        losses.append([float((sol.local_readout(k).detach() - 0.1 * labels).square().sum()) for k in range(3)])
        optimiser.step()
    assert all(last < 0.9 * first for first, last in zip(losses[0], losses[-1], strict=True)), (losses[0], losses[-1])


def test_an_angle_of_it():
    """Of a loss of the output: the last layer has one, those below have no gradient."""
    net, x = three_layers(False), spikes()
    trains = spikes(1)
    goal = adjsnn.SpikeTrains(trains.idx.clamp(max=2), trains.time, 3, trains.t_max)
    report = adjsnn.gradcheck.angle(
        net, x, lambda sol: adjsnn.losses.van_rossum(sol, goal).mean(), [LocalErrors(SHAPE), SurrogateBPTT(SHAPE)], dt=0.1
    )
    rows = [replace(report.row(rule, "w_in.2"), rule="") for rule in ("LocalErrors", "SurrogateBPTT")]
    assert rows[0] == rows[1]
    assert rows[0].cosine > 0.5
    assert report.row("LocalErrors", "w_in.0").ratio == 0.0
    with pytest.raises(ConfigurationError, match="LocalErrors"):
        adjsnn.gradcheck.angle(net, x, lambda sol: local_errors(sol, torch.zeros(4, 3)), [LocalErrors()], dt=0.5)


BAD = {
    "no list": (lambda net, x: LocalErrors(matrices=5), "matrices of type int"),
    "a shape": (lambda net, x: solved(net, x, LocalErrors(matrices=[torch.zeros(3, 2)])), "matrices of the shapes"),
    "classes": (lambda net, x: LocalErrors(classes=0), "classes=0"),
    "recurrent": (lambda net, x: LocalErrors(recurrent="random"), "recurrent='random'"),
    "reset": (lambda net, x: LocalErrors(reset="up"), "reset='up'"),
    "seed": (lambda net, x: LocalErrors(seed=-1), "seed"),
    "scale": (lambda net, x: LocalErrors(scale=0.0), "scale"),
    "through": (lambda net, x: LocalErrors(through_reset=1), "through_reset"),
    "surrogate": (lambda net, x: LocalErrors("triangle"), "surrogate"),
    "layer": (lambda net, x: solved(net, x, LocalErrors()).local_readout(3), "layer=3"),
    "another rule": (lambda net, x: solved(net, x, SurrogateBPTT()).local_readout(0), "LocalErrors"),
    "loss, another rule": (lambda net, x: local_errors(solved(net, x, SurrogateBPTT()), torch.zeros(4, 3)), "LocalErrors"),
    "loss, exact": (lambda net, x: local_errors(adjsnn.solve(net, x), torch.zeros(4, 3)), "LocalErrors"),
    "kind": (lambda net, x: local_errors(solved(net, x, LocalErrors()), torch.zeros(4, 3), "l1"), "kind='l1'"),
    "target": (lambda net, x: local_errors(solved(net, x, LocalErrors()), torch.zeros(3)), "a target of shape"),
    "burn-in": (lambda net, x: local_errors(solved(net, x, LocalErrors()), torch.zeros(4, 3), burn_in=61.0), "burn_in=61"),
    "burn-in < 0": (lambda net, x: local_errors(solved(net, x, LocalErrors()), torch.zeros(4, 3), burn_in=-1.0), "burn_in=-1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    call, message = BAD[case]
    with pytest.raises(ConfigurationError, match=message):
        call(three_layers(False), spikes())
