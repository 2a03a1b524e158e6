"""Experiments by learning rules: names, the step of the clock, angles along a training, and all rules on one page."""

import json
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

import adjsnn
from adjsnn import ConfigurationError, rules
from adjsnn.training import main
from adjsnn.training.angles import FIGURES, angles
from adjsnn.training.files import read_metrics
from adjsnn.training.rules import BY_NAME, Adjoint, adjoint_of, named

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import compare_rules  # noqa: E402  the folder of scripts is not a package
import without_gradient  # noqa: E402
from credit_assignment import (  # noqa: E402
    PatternsByAnyRule,
    PatternsTask,
    XorByAnyRule,
    XorTask,
    YinYangByAnyRule,
    YinYangTask,
)

TIMES = ["--delay", "0", "4", "--gap", "2", "4", "--pulse", "4", "--answer", "8", "--lead", "2", "--rest", "2"]
XOR = [
    "--task",
    "delayed_xor",
    "--neurons",
    "6",
    *TIMES,
    "--reaction",
    "2",
    "--validation-trials",
    "6",
    "--held-out-trials",
    "6",
]
YIN_YANG = ["--task", "yin_yang", "--hidden", "8"]
KINDS = YinYangByAnyRule, XorByAnyRule


def run(flags, tmp_path, kinds=KINDS):
    assert main(*kinds, argv=[*flags, "--iterations", "2", "--batch", "4", "--log-every", "1", "--runs", str(tmp_path)]) == 0
    (folder,) = (tmp_path / "credit_assignment").iterdir()
    return folder


def test_every_name_is_a_choice():
    assert set(get_args(Adjoint)) == {"default", *BY_NAME}
    assert adjoint_of("default", 10.0, 0) is None
    for name in BY_NAME:
        assert adjoint_of(name, 7.0, 3) is not None
    rule = adjoint_of("feedback_alignment", 7.0, 3)
    assert (rule.surrogate, rule.seed) == (rules.FastSigmoid(7.0), 3)
    with pytest.raises(ConfigurationError, match="'nonsense'"):
        adjoint_of("nonsense", 1.0, 0)


def test_a_rule_may_have_a_slope_of_its_own():
    assert named("surrogate", 10.0) == ("surrogate", 10.0)
    assert named("surrogate@100", 10.0) == ("surrogate", 100.0)
    for bad in ("surrogate@", "surrogate@-1", "surrogate@inf", "surrogate@nan", "surrogat", "default", ""):
        with pytest.raises(ConfigurationError, match="with @ and a slope"):
            named(bad, 10.0)


def test_the_clock_is_that_of_rules_on_one():
    assert YinYangByAnyRule(YinYangTask(adjoint="event")).clock() == {}
    assert YinYangByAnyRule(YinYangTask(adjoint="surrogate", clock=0.2)).clock() == {"dt": 0.2}
    with pytest.raises(ConfigurationError, match="whole steps"):
        XorByAnyRule(XorTask(adjoint="surrogate", clock=0.3)).finer()


@pytest.mark.every(2)
@pytest.mark.parametrize("task", [YIN_YANG, XOR], ids=["yin_yang", "delayed_xor"])
def test_a_training_by_a_rule_measures_its_angle(task, tmp_path):
    folder = run(
        [*task, "--adjoint", "surrogate", "--clock", "1.0", "--angles", "event", "surrogate", "surrogate@50"], tmp_path
    )
    metrics, summary = read_metrics(folder), json.loads((folder / "summary.json").read_text())
    assert metrics["cosine_event"] == pytest.approx([1.0] * 3, abs=1e-12)
    assert metrics["ratio_event"] == pytest.approx([1.0] * 3, rel=1e-12)
    assert set(metrics["miscounted_event"]) == {0.0}
    assert all(-1.0 <= x < 0.9999 for x in metrics["cosine_surrogate"])
    assert metrics["cosine_surrogate"] != metrics["cosine_surrogate@50"]
    assert {f"{name}_surrogate@50" for name in FIGURES} <= metrics.keys()
    assert {"accuracy", "accuracy_exact"} <= summary["held_out"].keys()


@pytest.mark.slow
def test_measuring_leaves_the_training_as_it_is(tmp_path):
    """And its global random numbers, which a network may draw from."""
    flags = [*YIN_YANG, "--adjoint", "feedback_alignment", "--clock", "1.0"]
    without, measured = run(flags, tmp_path / "a"), run([*flags, "--angles", "surrogate"], tmp_path / "b")
    assert (without / "best.safetensors").read_bytes() == (measured / "best.safetensors").read_bytes()
    experiment = YinYangByAnyRule(YinYangTask(hidden=8, batch=4, angles=("surrogate",), clock=1.0))
    net, state = experiment.network(), torch.get_rng_state()
    before = [p.clone() for p in net.parameters()]
    first = angles(experiment, net)
    torch.rand(1)
    assert angles(experiment, net) == first
    for p, x in zip(net.parameters(), before, strict=True):
        assert torch.equal(p, x)
        assert p.grad is None
    torch.set_rng_state(state)


def test_rules_with_a_cost_of_their_own_reach_every_layer(tmp_path):
    """Of local errors the hidden layer's readout, of escape noise the score; and the exact cost is the task's alone."""
    for task, kind, config in (
        (YinYangTask, YinYangByAnyRule, {"adjoint": "local_errors", "hidden": 8, "batch": 4}),
        (PatternsTask, PatternsByAnyRule, {"adjoint": "escape_noise", "hidden": 4, "outputs": 2, "inputs": 10, "t_end": 100.0}),
    ):
        experiment = kind(task(**config, clock=1.0))
        net = experiment.network()
        cost = experiment.cost(net, experiment.batch(experiment.generator(), 0))
        cost.value.backward()
        assert all(bool(w.grad.any()) for w in net.w_in)
    with pytest.raises(ConfigurationError, match="local_errors"):
        named("local_errors", 1.0)
    assert named("local_errors", 1.0, YinYangByAnyRule.adjoints) == ("local_errors", 1.0)
    folder = run([*YIN_YANG, "--adjoint", "local_errors", "--clock", "1.0", "--angles", "local_errors"], tmp_path)
    assert all(abs(x) < 1.0 for x in read_metrics(folder)["cosine_local_errors"])


def test_angles_of_drawn_spikes_are_the_same_at_each_evaluation():
    """Whatever the global generator has drawn in between; it goes on from where it was."""
    small = {"hidden": 4, "outputs": 2, "inputs": 10, "t_end": 100.0, "clock": 1.0}
    experiment = PatternsByAnyRule(PatternsTask(**small, angles=("escape_noise",)))
    net = experiment.network()
    torch.manual_seed(1)
    first, state = angles(experiment, net), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert angles(experiment, net) == first
    other = PatternsByAnyRule(PatternsTask(**small, angles=("escape_noise",), seed=1))
    assert angles(other, net) != first


def test_evolution_is_judged_by_the_mean_of_its_distribution(monkeypatch):
    """And not by the best network that one batch has found."""
    made = []

    class Seen(rules.Evolution):
        def __init__(self, net, **options):
            super().__init__(net, **options)
            made.append(self)

    monkeypatch.setattr(without_gradient, "Evolution", Seen)
    task = YinYangByAnyRule(YinYangTask(hidden=4, batch=4))
    found, (evolution,) = without_gradient.evolved(task, 2), made

    def held():
        return torch.cat([p.detach().flatten() for p in evolution.net.parameters() if p.requires_grad])

    kept = held()
    torch.testing.assert_close(kept, evolution._parameters(evolution._strategy.mean).to(kept))
    evolution.keep = "best"
    evolution.write_()
    assert not torch.equal(kept, held())
    evolution.keep = "mean"
    evolution.write_()
    with torch.no_grad():
        assert task.evaluate(evolution.net, "held_out") == found


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*YIN_YANG, "--angles", "surrogat"], "a learning rule 'surrogat'"),
        ([*YIN_YANG, "--adjoint", "eprop"], "by EProp"),
        ([*YIN_YANG, "--angles", "eprop"], "by EProp"),
        ([*YIN_YANG, "--adjoint", "discrete"], "DiscreteAdjoint"),
        ([*YIN_YANG, "--adjoint", "surrogate", "--clock", "0.7"], "whole number of steps"),
        ([*XOR, "--adjoint", "surrogate", "--clock", "0.7"], "whole steps"),
    ],
)
def test_what_does_not_go_together_is_refused_before_there_is_a_folder(flags, message, tmp_path, capsys):
    assert main(*KINDS, argv=[*flags, "--iterations", "2", "--batch", "4", "--runs", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_all_rules_on_one_page(tmp_path, monkeypatch, capsys):
    """Two seeds of two steps; what is finished is not run again, and an unknown task is refused. Two rules a task."""
    monkeypatch.chdir(tmp_path)
    for name, task in compare_rules.TASKS.items():
        few = task._replace(rules=("event", task.rules[-1]), clocks=task.clocks[:2])
        monkeypatch.setitem(compare_rules.TASKS, name, few)
    flags = "--flags=--iterations 2 --batch 4 --log-every 1"
    argv = ["--seeds", "2", "--generations", "1", flags, "--runs", str(tmp_path), "--page", str(tmp_path / "page.md")]
    assert compare_rules.main(argv) == 0, capsys.readouterr().err
    page = (tmp_path / "page.md").read_text()
    for task in compare_rules.TASKS.values():
        assert f"## {task.title}" in page
        assert all(f"| {compare_rules.RULES[rule].label} |" in page for rule in task.rules)
    assert page.count("\n| other counts, % |") == 2  # of one task, at the start and of what was kept
    assert "| kept by exact trainings | 1 ms | 0.5 ms |" in page
    measured = json.loads((tmp_path / "compare_rules" / "delayed_xor" / "clocks" / "seed-1" / "found.json").read_text())
    start = read_metrics(next((tmp_path / "compare_rules" / "delayed_xor" / "event" / "seed-1").glob("*/*")))
    for row, name in (
        ("e-prop, random, slope × clock 5", "eprop_random"),
        ("surrogate BPTT, slope × clock 30", "surrogate@30"),
    ):
        # The same cost at the same weights on the same batch as at the first evaluation of the training.
        assert measured["start"]["1"][row] == pytest.approx(start[f"cosine_{name}"][0], rel=1e-9)
    assert {path.name for path in tmp_path.glob("*.png")} == {"page_slopes.png", "page_training.png"}
    folders = {str(path) for path in (tmp_path / "compare_rules").rglob("summary.json")}
    assert len(folders) == 2 * sum(len(task.rules) for task in compare_rules.TASKS.values())
    assert compare_rules.main(argv) == 0
    assert {str(path) for path in (tmp_path / "compare_rules").rglob("summary.json")} == folders
    assert compare_rules.main([*argv, "--tasks", "nonsense"]) == 1
    assert "nonsense" in capsys.readouterr().err
    assert adjsnn.rules.CATALOGUE.keys() >= {rule.row for rule in compare_rules.RULES.values()}
