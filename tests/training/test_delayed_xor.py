"""Delayed-memory XOR: its trials leak nothing, its decisions are right on an ideal readout, its limit on samples limits."""

import io
import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import adjsnn
from adjsnn.training import Cost, main
from adjsnn.training.batches import samples_of
from adjsnn.training.main import parsed

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import digits  # noqa: E402  the folder of scripts is not a package
import xor_trials  # noqa: E402
import yin_yang  # noqa: E402
from delayed_xor import ADAPTIVE, LIF, Gated, GatedXor, LIFXor  # noqa: E402
from xor_trials import decide, draw_trials, one_of_each  # noqa: E402


def test_classes_come_as_often_as_stated():
    trials = draw_trials(Gated(), 20_000, torch.Generator().manual_seed(0))
    shares = torch.bincount(trials.labels, minlength=3) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.4, 0.4, 0.2]), rtol=0, atol=0.015)  # 4 standard errors
    missing = (trials.signs == 0).double().mean(0)
    torch.testing.assert_close(missing, torch.tensor([0.1, 0.1]).double(), rtol=0, atol=0.01)
    assert ((trials.signs == 0).sum(1) <= 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("label", range(3))
def test_no_time_tells_the_class(label):
    """The cue, and where each pulse has its place, are as often at each time in one class as in all trials."""
    trials = draw_trials(Gated(), 60_000, torch.Generator().manual_seed(0))
    here = trials.labels == label
    for column in range(3):
        times = trials.starts[:, column].long()
        overall = torch.bincount(times) / len(times)
        among = torch.bincount(times[here], minlength=len(overall)) / int(here.sum())
        error = (overall / int(here.sum())).sqrt()
        assert ((among - overall).abs() <= 5 * error + 1e-12).all()


def test_the_input_is_what_it_should_be():
    config = Gated()
    trials = one_of_each(config)
    on = trials.u.abs().sum(0) * config.dt
    expected = torch.tensor([[2, 1], [2, 1], [2, 1], [2, 1], [1, 1], [1, 1]]) * config.pulse
    torch.testing.assert_close(on, expected)
    assert trials.labels.tolist() == [0, 0, 1, 1, 2, 2]
    first, second, cue = trials.starts[0].tolist()
    assert (second - first, cue - second) == (config.pulse + 100.0, config.pulse + 30.0)
    steps = trials.u[:, 0].nonzero()
    assert steps[0].tolist() == [round(first / config.dt), 0]


def test_the_target_answers_after_the_cue_alone():
    config = Gated()
    trials = draw_trials(config, 100, torch.Generator().manual_seed(0))
    means = ((trials.target * trials.window).sum(0) / trials.window.sum(0)).squeeze(1)
    assert torch.equal(decide(means), trials.labels)
    assert (decide(0.4 * means) == 2).all()
    after = trials.starts[:, 2] + config.reaction
    times = (torch.arange(len(trials.target)) * config.dt)[:, None]
    assert not trials.target[:, :, 0][times < after].any()
    assert trials.target.abs().amax(0).squeeze(1)[trials.labels < 2].min() > 0.99
    assert not trials.target[:, trials.labels == 2].any()


def test_outlying_gradients_are_cut_further():
    """A norm of 60 with the limit 30 and clip 1 ends at a half; one of 20 at 1; one of 0.5 is left alone."""
    experiment = GatedXor(Gated(neurons=5))
    net = experiment.network()
    for norm, expected in ((60.0, 0.5), (20.0, 1.0), (0.5, 0.5)):
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        net.w_in.grad[0, 0] = norm
        assert experiment.limit_gradient(net) == pytest.approx(norm)
        assert float(net.w_in.grad[0, 0]) == pytest.approx(expected)


def test_steps_get_shorter_where_gradients_are_steep():
    """In proportion to the geometric mean of the norm, which a resumed run knows; not below the limit, nor without one."""
    experiment, unlimited = GatedXor(Gated(neurons=5)), GatedXor(Gated(neurons=5, steep=0.0))
    net = experiment.network()
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    assert experiment.schedule(0.0) == 1.0
    for _ in range(400):
        for known in (experiment, unlimited):
            net.w_in.grad[0, 0] = 16.0
            known.limit_gradient(net)
    assert experiment.schedule(0.0) == pytest.approx(0.5)
    assert unlimited.schedule(0.0) == 1.0
    other = GatedXor(experiment.config)
    other.load_state(experiment.state())
    assert other.schedule(0.5) == experiment.schedule(0.5)


def test_a_network_that_has_become_chaotic_goes_back():
    """To one of 50 steps before or more, with half the steps from there; a resumed run would do the same."""
    experiment = GatedXor(Gated(neurons=5))
    net = experiment.network()

    def after(steps: int, norm: float, known: GatedXor = experiment) -> None:
        for _ in range(steps):
            known.log_norm = math.log(norm)
            with torch.no_grad():
                net.bias.add_(1.0)
                known.after_step(net, *_NONE)

    start = net.bias[0].item()
    after(100, 8.0)
    assert [x["net"]["bias"][0].item() - start for x in experiment.kept] == pytest.approx([50.0, 100.0])
    after(100, 200.0)  # steep, and not kept
    assert net.bias[0].item() - start == pytest.approx(200.0)
    other = GatedXor(experiment.config)
    other.load_state(torch.load(io.BytesIO(saved(experiment.state())), weights_only=True))
    last = [x.detach().clone() for x in net.parameters()]
    for known in (experiment, other):
        with torch.no_grad():
            for p, x in zip(net.parameters(), last, strict=True):
                p.copy_(x)
        after(1, 300.0, known)
        assert net.bias[0].item() - start == pytest.approx(50.0)
        assert known.schedule(0.0) == pytest.approx(0.5)
        assert known.shortened_step() == 0.5
    after(1, 300.0)
    assert experiment.schedule(0.0) == pytest.approx(0.25)
    never = GatedXor(Gated(neurons=5, retreat=0.0))
    after(60, 8.0, never)
    before = net.bias[0].item()
    after(1, 1e6, never)
    assert net.bias[0].item() == pytest.approx(before + 1.0)


class Overflowing(GatedXor):
    """The gradients of steps 12 and 21 overflow, though their cost is finite."""

    @classmethod
    def name(cls) -> str:
        return "overflowing"

    def batch(self, generator: torch.Generator, step: int) -> Any:
        self.step = step
        return super().batch(generator, step)

    def limit_gradient(self, net: Any) -> float:
        if self.step in (11, 20):
            net.w_rec.grad[0, 0] = math.inf if self.step == 11 else math.nan
        return super().limit_gradient(net)

    def figures(self, net: Any) -> dict[str, Any]:
        return {}

    curves = figures

    def after_overflow(self, net: Any) -> None:
        assert any(not torch.equal(x, self.kept[0]["net"][name]) for name, x in net.state_dict().items())
        super().after_overflow(net)
        assert all(torch.equal(x, self.kept[0]["net"][name]) for name, x in net.state_dict().items())


@pytest.mark.slow
def test_a_network_whose_gradient_overflows_goes_back(tmp_path, monkeypatch):
    """With half the steps; and a run that is resumed before it does so as one that was not, to the bit."""
    monkeypatch.setattr(xor_trials, "KEPT_EVERY", 3)
    short = ["--iterations", "24", "--batch", "4", "--neurons", "6", "--delay", "0", "20", "--validation-trials", "4"]
    assert main(Overflowing, argv=[*short, "--held-out-trials", "4", "--save-every", "8", "--runs", str(tmp_path)]) == 0
    (run,) = (tmp_path / "overflowing").iterdir()
    earlier, last = sorted((run / "checkpoints").iterdir())
    paces = [torch.load(path / "state.pt", weights_only=True)["experiment"]["pace"] for path in (earlier, last)]
    assert (earlier.name, last.name, paces) == ("00000016", "00000024", [0.5, 0.25])
    whole = (last / "weights.safetensors").read_bytes()
    shutil.rmtree(last)
    (run / "summary.json").unlink()
    assert main(Overflowing, argv=["--resume", str(run)]) == 0
    assert (last / "weights.safetensors").read_bytes() == whole


@pytest.mark.parametrize("options", [{}, {"retreat": 0.0}, {"steep": 0.0}])
@pytest.mark.parametrize("kept", [False, True])
def test_an_overflow_is_chaos_where_there_is_something_to_go_back_to(options: dict[str, float], kept: bool):
    known = GatedXor(Gated(neurons=5, **options))
    net = known.network()
    before = {name: x.clone() for name, x in net.state_dict().items()}
    earlier = {name: x + 1.0 for name, x in before.items()}
    known.kept, known.log_norm = [{"net": earlier, "log_norm": 1.0}, {"net": before, "log_norm": 2.0}] if kept else [], 3.0
    known.after_overflow(net)
    back = kept and not options
    assert all(torch.equal(x, (earlier if back else before)[name]) for name, x in net.state_dict().items())
    assert (known.pace, known.log_norm, len(known.kept)) == ((0.5, 1.0, 1) if back else (1.0, 3.0, 2 * kept))


def saved(state: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


_NONE: Any = (None, None, 0.0)  # a batch, its cost and the rate, which nobody asks for


@pytest.mark.every(2)
@pytest.mark.parametrize("network", ["gated", "lif"])
def test_a_short_run(network, tmp_path, monkeypatch):
    few = ["--validation-trials", "20", "--held-out-trials", "20"]
    monkeypatch.setattr(xor_trials, "DELAYS", (0.0, 20.0))
    short = ["--iterations", "2", "--batch", "4", "--neurons", "10", "--delay", "0", "20", "--network", network, *few]
    assert main(GatedXor, LIFXor, argv=[*short, "--runs", str(tmp_path)]) == 0
    (run,) = (tmp_path / "delayed_xor").iterdir()
    assert {path.stem for path in (run / "figures").iterdir()} == {"trials", "accuracy_against_delay", "events", "history"}
    assert 0.0 <= json.loads((run / "summary.json").read_text())["held_out"]["accuracy"] <= 1.0


def test_both_families_measure_the_same_readout():
    """Mean and error of a LIF network's readout, exact integrals, against sums over a fine grid."""
    experiment = LIFXor(LIF(neurons=20, batch=4, dtype="float64", dt=1.0))
    net = experiment.network().double()
    trials = experiment.place(draw_trials(experiment.config, 4, torch.Generator().manual_seed(0)))
    ts = torch.arange(0.0, len(trials.u), 0.01, dtype=torch.float64)
    fine = adjsnn.solve(net, trials.u, dt=1.0, ts=ts).readout[:, :, 0]
    assert fine.abs().max() > 0.01
    start = trials.starts[:, 2] + 10.0
    inside = (ts[:, None] >= start) & (ts[:, None] < start + 60.0)
    sol = experiment.solve(net, trials)
    torch.testing.assert_close(experiment.means(sol, trials), (fine * inside).sum(0) * 0.01 / 60.0, rtol=0, atol=2e-4)
    place = torch.floor(ts).long()
    rest = (ts - place)[:, None]
    target = trials.target[:, :, 0]
    between = (1.0 - rest) * target[place] + rest * target[place + 1]
    errors = (fine - between).square().sum(0) * 0.01 / 60.0
    torch.testing.assert_close(sol.readout_error(trials.target) / 60.0, errors, rtol=1e-2, atol=1e-4)


def test_delays_get_longer_and_a_resumed_run_knows():
    experiment = LIFXor(LIF(neurons=10, batch=8))
    trials = experiment.place(experiment.batch(torch.Generator().manual_seed(0), 0))
    assert (trials.starts[:, 1] - trials.starts[:, 0] == 40.0).all()
    ideal = torch.tensor([0.5, -0.5, 0.0])[trials.labels]
    right = Cost(torch.zeros(()), type("Ideal", (), {"readout_integral": lambda *window: 60.0 * ideal[:, None]})())
    for _ in range(40):
        experiment.after_step(None, trials, right, 0.0)
    assert experiment.shortened().delay[1] > 40.0
    other = LIFXor(experiment.config)
    other.load_state(experiment.state())
    assert other.shortened() == experiment.shortened()


@pytest.mark.slow
def test_adjoints_give_the_same_gradient():
    """The discrete adjoint and BPTT of the same steps to rounding; the continuous one of other steps, roughly."""
    gradients = {}
    for adjoint in ("discrete", "bptt", "continuous"):
        short = {"delay": (0.0, 20.0), "gap": (5.0, 5.0), "answer": 20.0, "rest": 0.0}
        config = Gated(neurons=10, batch=4, dtype="float64", dt=0.25, adjoint=adjoint, w_rec_start=0.1, **short)
        experiment = GatedXor(config)
        net = experiment.network().double()
        batch = experiment.place(draw_trials(config, 4, torch.Generator().manual_seed(0)))
        experiment.cost(net, samples_of(batch, slice(0, 2))).value.backward()
        gradients[adjoint] = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients["discrete"], gradients["bptt"], rtol=1e-9, atol=1e-12)
    norm = gradients["discrete"].norm()
    assert (gradients["continuous"] - gradients["discrete"]).norm() < 0.3 * norm  # Euler's error at this step


def test_a_delay_that_cannot_be(tmp_path, capsys):
    assert main(GatedXor, LIFXor, argv=["--delay", "40", "10", "--runs", str(tmp_path)]) == 1
    assert "shortest ≤ longest" in capsys.readouterr().err


@pytest.mark.parametrize("learnt", [False, True])
def test_adaptive_neurons_in_place_of_slow_synapses(learnt):
    """Half of the neurons adapt, time constants lie in their range, no synapse is slow; a step learns what it is told to."""
    small = {"neurons": 20, "batch": 4, "tau_adapt": (150.0, 600.0)}
    config = replace(LIF(adaptation=True).settled(), **small, jump_adapt=-0.02, learn_adaptation=learnt)
    experiment = LIFXor(config)
    net = experiment.network()
    assert (net.tau_syn[0] == config.tau_syn).all()
    for tau, jump, value in ((net.tau_adapt[0], net.jump_adapt[0], -0.02), (net.tau_th[0], net.jump_th[0], config.jump_th)):
        assert config.tau_adapt[0] <= tau.min() < tau.max() <= config.tau_adapt[1]
        assert torch.equal(jump.detach()[0], torch.tensor([value] * 10 + [0.0] * 10))
    trials = experiment.place(draw_trials(config, 4, torch.Generator().manual_seed(0)))
    cost = experiment.cost(net, trials)
    assert cost.sol.threshold(0).max() > 1.01
    assert cost.sol.threshold(0)[:, :, 10:].max() == 1.0
    cost.value.backward()
    names = {name for name, p in net.named_parameters() if p.grad is not None and bool(p.grad.any())}
    adapting = {"tau_adapt.0", "jump_adapt.0", "tau_th.0", "jump_th.0"}
    assert names == {"w_in.0", "w_rec.0", "bias.0", "w_out"} | (adapting if learnt else set())
    assert {name for name in experiment.sizes(net) if net.get_parameter(name).requires_grad} == names
    with torch.no_grad():
        net.tau_th[0][0, 0] = net.jump_th[0][0, 1] = -5.0
    experiment.after_step(net, trials, cost, 0.0)
    after = float(net.tau_th[0][0, 0].detach()), float(net.jump_th[0][0, 1].detach())
    assert after == ((1.0, 0.0) if learnt else (-5.0, -5.0))


@pytest.mark.parametrize("slipped", [0.0, 0.8])
def test_delays_get_shorter_where_few_answers_are_right(slipped):
    experiment = LIFXor(LIF(neurons=10, batch=8, slipped=slipped))
    trials = experiment.place(draw_trials(experiment.config, 8, torch.Generator().manual_seed(0)))
    wrong = torch.tensor([-0.5, 0.5, 0.5])[trials.labels]
    slip = Cost(torch.zeros(()), type("Wrong", (), {"readout_integral": lambda *window: 60.0 * wrong[:, None]})())
    experiment.part, experiment.right = 0.03, 0.88
    experiment.after_step(None, trials, slip, 0.0)  # a running mean of 0.79
    assert experiment.part == pytest.approx(0.01 if slipped else 0.03)
    experiment.after_step(None, trials, slip, 0.0)
    assert experiment.part == (0.0 if slipped else 0.03)


def test_adaptation_has_defaults_of_its_own():
    assert LIF().settled() == LIF()
    assert parsed(LIF, ["--adaptation"]) == replace(LIF(adaptation=True), **ADAPTIVE)
    for given in ({"charge_start": 7.0}, {"activity_cost": LIF.activity_cost, "steep": LIF.steep}):  # a default too
        flags = [x for name, value in given.items() for x in (f"--{name.replace('_', '-')}", str(value))]
        assert parsed(LIF, ["--adaptation", *flags]) == replace(LIF(adaptation=True), **ADAPTIVE | given)


@pytest.mark.parametrize("kind", [yin_yang.Config, digits.Config])
def test_what_is_given_by_hand_counts_beside_a_flag_that_stands_for_several(kind):
    assert parsed(kind, ["--quick"]) == kind(quick=True).settled() != kind(quick=True)
    assert parsed(kind, ["--quick", "--iterations", str(kind.iterations)]).iterations == kind.iterations


def test_the_gradient_of_adaptive_trials_is_exact():
    """Along a random direction of each parameter, against central differences."""
    config = LIF(neurons=10, batch=3, dtype="float64", delay=(20.0, 20.0), adaptation=True, learn_adaptation=True)
    experiment = LIFXor(config)
    net, generator = experiment.network().double(), torch.Generator().manual_seed(1)
    trials = experiment.place(draw_trials(config, 3, torch.Generator().manual_seed(0)))
    experiment.cost(net, trials).value.backward()
    for name, p in net.named_parameters():
        if p.grad is None:
            continue
        step = 1e-6 * torch.as_tensor(experiment.sizes(net)[name]).double() * torch.randn(p.shape, generator=generator).double()
        costs = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                p.add_(sign * step)
                costs.append(float(experiment.cost(net, trials).value))
                p.sub_(sign * step)
        expected = float((p.grad * step).sum())
        assert 0.5 * (costs[0] - costs[1]) == pytest.approx(expected, rel=1e-5, abs=1e-11), name  # rounding of a cost of 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--adaptation", "--jump-th", "0"], "jump_adapt=0 and jump_th=0"),
        (["--learn-adaptation"], "--adaptation --learn-adaptation"),
        (["--adaptation", "--tau-adapt", "600", "150"], "shortest ≤ longest"),
    ],
)
def test_adaptation_that_cannot_be(flags, said, tmp_path, capsys):
    assert main(GatedXor, LIFXor, argv=["--network", "lif", *flags, "--runs", str(tmp_path)]) == 1
    assert said in capsys.readouterr().err
