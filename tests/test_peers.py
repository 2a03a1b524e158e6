"""`benchmarks/peers.py` without the other libraries: its rows, adjsnn's side of every problem, and processes that answer."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "peers"))

import adjsnn_side  # folders of scripts are not packages
import peers
import peers_judged
import protocol

import adjsnn

TOY = """
import protocol

def build(case):
    if case.options.get("broken"):
        raise ValueError("no such thing\\nand more")
    return lambda: {"d_w": 2 * case["w"], "y": case["w"][: case.samples()]}

def layer(case):
    return lambda w0, w1, c: {"first": w0 @ w1} | ({} if c is None else {"d_w0": c * w1})

protocol.serve(["numpy"], build, layer)
"""


def test_every_row_has_a_script_a_problem_and_pinned_versions():
    for row in peers.ROWS:
        assert (peers.SCRIPTS / row.script).is_file()
        assert row.problem in peers.PROBLEMS
        assert all("==" in package for package in row.packages)
        assert row.packages or row.options["problem"] in adjsnn_side.PROBLEMS
    assert {row.problem for row in peers.ROWS} == {*peers.PROBLEMS}
    assert {*peers.PROBLEMS} <= {*adjsnn_side.PROBLEMS}


def test_scripts_of_peers_do_without_adjsnn():
    for path in peers.SCRIPTS.glob("*.py"):
        assert path.name == "adjsnn_side.py" or "import adjsnn" not in path.read_text()


def _problems():
    """Those of smooth systems are slow: the first adjoint of one in a process imports much of torch."""
    return [pytest.param(name, marks=pytest.mark.slow if name.startswith("smooth") else ()) for name in peers.PROBLEMS]


@pytest.mark.parametrize("name", _problems())
def test_adjsnn_serves_a_gradient_of(name):
    arrays, run = adjsnn_side.PROBLEMS[name](torch.float64, True)
    found = run()
    gradients = [np.asarray(value) for key, value in found.items() if key.startswith("d_")]
    assert {"samples", *(key.removeprefix("d_") for key in found if key.startswith("d_"))} <= {*arrays}
    assert all(np.isfinite(g).all() for g in gradients)
    assert any(g.any() for g in gradients)
    assert peers.relative({"d_x": gradients[0]}, {"d_x": gradients[0]}) == 0.0


def _worker(tmp_path, monkeypatch, **options):
    (tmp_path / "toy.py").write_text(f"import sys; sys.path.insert(0, {str(peers.SCRIPTS)!r})\n{TOY}")
    monkeypatch.setattr(peers, "SCRIPTS", tmp_path)
    np.savez(tmp_path / "case.npz", w=np.arange(3.0), samples=3)
    row = peers.Row("toy", "toy.py", "lif", ("toy==1",), "", options)
    return peers.Worker(Path(sys.executable), row, tmp_path / "case.npz", "float32", 1, {"samples": 2})


def test_a_process_answers_and_is_closed(tmp_path, monkeypatch):
    worker = _worker(tmp_path, monkeypatch)
    assert worker.version == f"numpy {np.__version__}"
    assert worker.ask("run")["ms"] > 0.0
    found = worker.results(tmp_path / "found.npz")
    worker.close()
    assert found["d_w"].tolist() == [0.0, 2.0, 4.0]
    assert found["d_w"].dtype == np.float32
    assert found["y"].tolist() == [0.0, 1.0]


def test_a_process_takes_weights_and_a_cotangent(tmp_path, monkeypatch):
    worker = _worker(tmp_path, monkeypatch)
    weights = [torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([3.0, 4.0], dtype=torch.float64)]
    assert peers_judged.ask(worker, tmp_path, weights)["first"] == 11.0
    found = peers_judged.ask(worker, tmp_path, weights, torch.tensor(2.0, dtype=torch.float64))
    worker.close()
    assert found["d_w0"].tolist() == [6.0, 8.0]


class _InProcess:
    """A library that is adjsnn, but for a factor on its gradients."""

    def __init__(self, case, factor):
        numbers = {name: float(case[name]) for name in ("tau_mem", "tau_syn", "v_th", "refractory")}
        self.net = adjsnn.LIFNetwork(5, [len(case["w0"]), len(case["w1"])], dtype=torch.float64, **numbers)
        self.x = adjsnn.SpikeTrains(*(torch.as_tensor(case[name]) for name in ("idx", "time")), 5, float(case["t_end"]))
        self.factor = factor

    def first(self, weights):
        with torch.no_grad():
            for own, w in zip(self.net.w_in, weights, strict=True):
                own.copy_(w)
        return adjsnn.solve(self.net, self.x).first_spike_times()

    @torch.enable_grad()
    def ask(self, line):
        with np.load(line.removeprefix("pull ")) as given:
            first = self.first([torch.from_numpy(given[name]) for name in ("w0", "w1")])
            self.found = {"first": first.detach()}
            if "c" in given:
                there = first.isfinite()
                cost = (torch.from_numpy(given["c"])[there] * first[there]).sum()
                gradients = torch.autograd.grad(cost, [*self.net.w_in])
                self.found |= {f"d_w{k}": self.factor * g for k, g in enumerate(gradients)}

    def results(self, file):
        protocol.save(file, self.found)
        with np.load(file) as arrays:
            return dict(arrays)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "exact"), (1.01, "wrong")])
def test_a_process_is_judged(factor, verdict, tmp_path):
    arrays, _ = adjsnn_side.PROBLEMS["lif"](torch.float64, True)
    case = {name: np.asarray(value) for name, value in arrays.items()}
    report = peers_judged.judged(_InProcess(case, factor), case, tmp_path, 2)
    assert [row.verdict for row in report.rows] == [verdict] * 2
    lines = peers_judged.cells("library 1.0", peers.ROWS[1], report)
    assert lines[0].startswith("| library 1.0 | EventProp")
    assert f"exact {report.spikes.exact}: 0 missed, 0 surplus" in lines[0]
    assert all(line.endswith(f" {verdict} |") for line in lines)


def test_every_spiking_layer_is_judged_once():
    chosen = peers_judged.rows({row.library for row in peers.ROWS})
    assert {row.library for row in chosen} == {"jaxsnn", "norse", "snntorch", "spikingjelly", "exact-snn-nn"}
    assert len({(row.library, row.problem, row.options.get("step")) for row in chosen}) == len(chosen)
    with pytest.raises(SystemExit):
        peers_judged.main(["--write", "--small"])


def test_a_failure_becomes_a_row(tmp_path, monkeypatch):
    worker = _worker(tmp_path, monkeypatch, broken=True)
    with pytest.raises(peers.Failed, match="ValueError: no such thing$"):
        worker.ask("run")
    one = peers.Measured(peers.ROWS[0])
    ours = peers.Measured(peers.Row("adjsnn", "adjsnn_side.py", "gated", (), "all"))
    one.worker, ours.ms, ours.cpu_ms = worker, [1.0], [1.0]
    one.fail(peers.Failed("ValueError: no such thing"))
    lines = peers.table(peers.PROBLEMS["gated"], [ours, one], {"samples": np.array(3)})
    assert lines[-2].endswith("| - | ValueError: no such thing |")


def test_what_is_off_is_told_as_the_judge_finds_it():
    inf = np.inf
    exact = {"first": np.array([[1.0, 2.0, inf]]), "counts": np.array([[2, 1, 0]]), "d_w": np.array([3.0, 4.0])}
    found = {"first": np.array([[1.5, inf, 4.0]], np.float32), "counts": np.array([[2, 0, 1]]), "d_w": np.array([3.0, 4.5])}
    told = "3 output spikes, adjsnn 3; another number in 2 of 3 neurons; first spikes off by 0.5 ms (median), 0.5 (largest)"
    assert peers.beside(found, exact) == told
    assert peers.relative(found, exact) == pytest.approx(0.1)
    assert peers.relative({"d_w": np.array(1.0)}, {"d_w": np.array(0.0)}) == 1.0
    silent = {"first": np.full((1, 3), inf), "counts": np.zeros((1, 3), bool)}
    assert peers.beside(silent, exact) == "0 output spikes, adjsnn 3; another number in 2 of 3 neurons; none spikes in both"


def test_arguments(capsys):
    with pytest.raises(SystemExit) as left:
        peers.main(["--help"])
    assert left.value.code == 0
    assert "--environments" in capsys.readouterr().out
    for wrong in (["--only", "nothing"], ["--write", "--small"], ["--rounds", "0"]):
        with pytest.raises(SystemExit):
            peers.parsed(wrong)
