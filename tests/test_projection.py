"""`project_` keeps learnt parameters where a solve accepts them: the nearest point, idempotent, the identity inside."""

import copy
import re
from pathlib import Path

import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn.utils import parametrize

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork

LEARN = ("weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset", "refractory", "delays")
X = adjsnn.SpikeTrains.from_list([[(1.0, 0), (2.0, 1)]], n_neurons=2, t_max=20.0)


def scattered(dtype: torch.dtype, seed: int = 0, learn=LEARN, **options) -> LIFNetwork:
    """A network whose parameters lie anywhere, inside the bounds and outside."""
    net = LIFNetwork(2, (40, 3), True, delays=1.0, rec_delays=1.0, learn=learn, dtype=dtype, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=dtype))
    return net


@pytest.mark.every(5)
@pytest.mark.parametrize("margin", [0.01, 0.1, 1.0 / 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("single", [(), ("v_th",), ("v_reset",), ("v_th", "v_reset")])
def test_projected_twice_is_projected_once_and_inside_nothing_moves(dtype, margin, single):
    for seed in range(20):
        net = scattered(dtype, seed)
        for name in single:
            getattr(net, name)[0] = nn.Parameter(getattr(net, name)[0].detach()[:1].clone())
        before = copy.deepcopy(net.state_dict())
        assert net.project_(margin=margin) is net
        once = copy.deepcopy(net.state_dict())
        net.project_(margin=margin)
        assert all(torch.equal(x, once[name]) for name, x in net.state_dict().items())
        for name, x in once.items():
            kind = name.split(".")[0]
            low = {"tau_mem": 0.1, "tau_syn": 0.1, "delays": 0.0, "rec_delays": 0.0, "refractory": 0.0}.get(kind)
            if low is not None:
                assert torch.equal(x, before[name].clamp(min=low))
            elif kind not in ("v_th", "v_reset"):
                assert torch.equal(x, before[name])
        for k in map(str, range(2)):
            th, reset = before[f"v_th.{k}"], before[f"v_reset.{k}"]
            inside = (th - margin >= reset).expand(max(len(th), len(reset)))
            if len(th) == len(reset):
                assert torch.equal(once[f"v_th.{k}"][inside], th[inside])
                assert torch.equal(once[f"v_reset.{k}"][inside], reset[inside])
            gap = once[f"v_th.{k}"] - once[f"v_reset.{k}"]
            assert float(gap.min()) >= margin * (1 - 1e-5)
        rest = [
            adjsnn.LIFState(v.detach().expand(n)[None], torch.zeros(1, n).to(v))
            for v, n in zip(net.v_reset, net.layers, strict=True)
        ]
        adjsnn.solve(net, X, t_end=0.0, y0=rest)  # accepted


def _square(x, origin):
    return ((x - origin) ** 2).sum()


@pytest.mark.parametrize(("thresholds", "resets"), [(1, 1), (4, 4), (1, 4), (4, 1)])
def test_threshold_and_reset_go_to_the_nearest_allowed_point(thresholds, resets):
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        net = LIFNetwork(2, (4,), learn=LEARN, delays=1.0, dtype=torch.float64)
        start = torch.randn(thresholds + resets, generator=generator, dtype=torch.float64)
        net.v_th[0], net.v_reset[0] = nn.Parameter(start[:thresholds].clone()), nn.Parameter(start[thresholds:].clone())
        net.project_(margin=0.2)
        found = torch.cat([net.v_th[0], net.v_reset[0]]).detach().numpy()
        gaps = {"type": "ineq", "fun": lambda x: x[:thresholds] - x[thresholds:] - 0.2}
        origin = start.numpy()
        nearest = minimize(_square, found, (origin,), constraints=gaps, method="SLSQP", options={"ftol": 1e-14})
        assert found == pytest.approx(nearest.x, abs=1e-6)


@pytest.mark.parametrize(
    ("learn", "expected"), [(("v_th",), (0.6, 0.5)), (("v_reset",), (0.4, 0.3)), (LEARN, (0.5, 0.4)), ((), (0.4, 0.5))]
)
def test_frozen_parameters_are_not_moved(learn, expected):
    net = LIFNetwork(2, (3,), delays=1.0, learn=learn, dtype=torch.float64)
    with torch.no_grad():
        net.v_th[0].fill_(0.4)
        net.v_reset[0].fill_(0.5)
        net.delays[0].fill_(-1.0)
    net.project_(margin=0.1)
    assert (float(net.v_th[0].detach()[0]), float(net.v_reset[0].detach()[0])) == pytest.approx(expected, abs=1e-15)
    assert torch.equal(net.delays[0].detach(), torch.full((2,), 0.0 if "delays" in learn else -1.0, dtype=torch.float64))


class Softplus(nn.Module):
    def forward(self, x):
        return nn.functional.softplus(x)


class Shifted(nn.Module):
    def forward(self, x):
        return x - 3.0

    def right_inverse(self, y):
        return y + 3.0


class OneWay(nn.Module):
    def forward(self, x):
        return x - 3.0


def test_parametrized_parameters_are_left_inside_set_outside_or_refused():
    def with_rule(rule, learn=("delays",)):
        net = LIFNetwork(2, (3,), delays=1.0, learn=learn, dtype=torch.float64)
        parametrize.register_parametrization(net.delays, "0", rule, unsafe=True)
        return net, net.delays.parametrizations["0"].original

    net, original = with_rule(Softplus())
    before = original.detach().clone()
    net.project_()
    assert torch.equal(original, before)
    net, original = with_rule(Shifted())
    with torch.no_grad():
        original.copy_(torch.tensor([2.0, 5.0]))  # delays of -1 and 2
    net.project_()
    assert torch.equal(net.delays[0].detach(), torch.tensor([0.0, 2.0], dtype=torch.float64))
    net, _ = with_rule(OneWay())
    with pytest.raises(ConfigurationError, match="right_inverse"):
        net.project_()
    net, original = with_rule(OneWay(), learn=("weights", "delays"))
    original.requires_grad_(False)
    net.project_()
    assert torch.equal(original.detach(), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [0.1, 0.2, 0.3, 1.0 / 3.0])
def test_a_gated_network_is_brought_to_where_a_solve_accepts_it(width, dtype):
    learn = ("weights", "tau_fast", "tau_mem", "v_reset")
    gate = adjsnn.RaisedCosineGate(width)
    net = adjsnn.GatedSynapseNetwork(2, 5, 1, neuron=adjsnn.LIF(), gate=gate, tau_fast=[5.0] * 5, learn=learn, dtype=dtype)
    with torch.no_grad():
        net.tau_fast.copy_(torch.linspace(-2.0, 6.0, 5))
        net.tau_mem.fill_(-3.0)
        net.v_reset.fill_(0.95)
    inside = net.tau_fast.detach() > 1.0
    kept = net.tau_fast.detach()[inside].clone()
    net.project_(tau_min=1.0)
    once = copy.deepcopy(net.state_dict())
    adjsnn.solve(net, torch.zeros(3, 1, 2, dtype=dtype), dt=0.5)
    net.project_(tau_min=1.0)
    assert all(torch.equal(x, once[name]) for name, x in net.state_dict().items())
    assert torch.equal(once["tau_fast"][inside], kept)
    assert bool((once["tau_fast"][~inside] == 1.0).all())
    assert once["tau_mem"] == 1.0
    assert float(once["v_reset"]) == pytest.approx(1.0 - width, rel=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("options", [{"tau_min": 0.0}, {"tau_min": None}, {"margin": -1.0}, {"margin": "a"}, {"tau_max": 0.05}])
def test_bounds_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        LIFNetwork(2, (3,), learn=LEARN, delays=1.0).project_(**options)


def _readme(steps: int, keep: bool) -> None:
    """README's LIF example, longer and with a larger learning rate, so that delays reach 0."""
    text = (Path(__file__).parent.parent / "README.md").read_text()
    example = next(x for x in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "LIFNetwork" in x)
    assert "lif.project_()" in example
    example = example.replace("range(20)", f"range({steps})")
    if not keep:
        example = re.sub(r"\n *lif.project_\(\).*", "", example)
    if steps < 500:
        example = example.replace("lr=0.01", "lr=0.2")
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})


def test_the_readme_example_trains_on_where_its_delays_reach_zero(capsys):
    with pytest.raises(ConfigurationError, match=r"delays\[\d\] from -.*project_"):
        _readme(30, keep=False)
    _readme(30, keep=True)
    assert "inf" not in capsys.readouterr().err


@pytest.mark.slow
def test_five_hundred_steps_of_the_readme_example():
    _readme(500, keep=True)
