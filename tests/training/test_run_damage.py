"""Damage to a run's files: told, mended from the last checkpoint, judged again; a run is finished only when it is whole."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file

from adjsnn.training import Cost, Experiment, TrainingConfig, main
from adjsnn.training.files import checkpoints, lost_files, read_summary
from adjsnn.training.runs import RunFolder

FLAGS = ["--iterations", "6", "--log-every", "2", "--save-every", "3"]


class Slope(Experiment[TrainingConfig]):
    """A weight that falls to zero; it is best at step 4 and judged worse at the end."""

    def network(self):
        torch.manual_seed(self.config.seed)
        return torch.nn.Linear(1, 1, bias=False)

    def batch(self, generator, step):
        return torch.randn(self.config.batch, 1, generator=generator)

    def cost(self, net, batch):
        return Cost((net(batch) - 2.0 * batch).square().mean(), None)

    def evaluate(self, net, split):
        return {"cost": float((net.weight - 2.0).square().sum())}

    def objective(self, found):
        return -found["cost"]  # the best is the start, so that it cannot be taken for the last one


def _start(root, *options):
    return main(Slope, argv=[*FLAGS, *options, "--runs", str(root)])


def _resume(run):
    return main(Slope, argv=["--resume", str(run)])


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    assert _start(root) == 0
    (path,) = (root / "slope").iterdir()
    return path


@pytest.fixture
def run(whole_run, tmp_path):
    """A finished run of its own."""
    return shutil.copytree(whole_run, tmp_path / "run")


def _contents(run):
    return {path.relative_to(run): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def _flip(path, place, bit=1):
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(bytes(data))


def _told(run):
    """What summary.json says of the network; time and memory differ from run to run."""
    return read_summary(run)["held_out"]


def _unfinished(run):
    """As a run is that was killed after its last step was saved."""
    (run / "summary.json").unlink()
    return run


def test_every_bit_of_the_best_network_counts(run, capsys):
    """Each byte of best.safetensors flipped once in turn: told, and written again as it was."""
    whole, best = _told(run), (run / "best.safetensors").read_bytes()
    folder = RunFolder(_unfinished(run))
    folder.go_back(6)
    net = Slope(TrainingConfig()).network()
    for place in range(len(best)):
        _flip(run / "best.safetensors", place, 1 << place % 8)
        folder.load_best(net)
        assert "best.safetensors was damaged" in capsys.readouterr().err
        assert (run / "best.safetensors").read_bytes() == best
    folder.close()
    assert _resume(run) == 0
    assert _told(run) == whole


@pytest.mark.parametrize(
    ("damage", "finished"), [("flipped", False), ("cut", False), ("missing", False), ("flipped", True), ("missing", True)]
)
def test_a_damaged_best_network_is_told_and_written_again(run, damage, finished, capsys):
    best, whole = run / "best.safetensors", _told(run)
    if not finished:
        _unfinished(run)
    before = best.read_bytes()
    if damage == "flipped":
        _flip(best, -1)
    elif damage == "cut":
        best.write_bytes(before[:-3])
    elif damage == "missing":
        best.unlink()
    else:
        assert _start(tmp_path / "other", "--seed", "5") == 0
        shutil.copy(next((tmp_path / "other" / "slope").iterdir()) / "best.safetensors", best)
    capsys.readouterr()
    assert _resume(run) == 0
    told = capsys.readouterr().err
    assert "best.safetensors was damaged" in told
    assert best.read_bytes() == before
    assert _told(run) == whole
    assert lost_files(run) == []


def test_a_best_network_damaged_while_the_run_goes_on_is_written_again(tmp_path, capsys):
    class Careless(Slope):
        def after_step(self, net, batch, cost, rate):
            for path in tmp_path.glob("careless/*/best.safetensors"):
                path.unlink()

    assert main(Careless, argv=[*FLAGS, "--runs", str(tmp_path)]) == 0
    assert "best.safetensors was missing" in capsys.readouterr().err
    (run,) = (tmp_path / "careless").iterdir()
    start = Slope(TrainingConfig()).network().weight.detach()
    assert torch.equal(load_file(run / "best.safetensors")["weight"], start)
    assert _told(run) == {"cost": float((start - 2.0).square())}


def test_a_best_network_lost_for_good_is_judged_again(run, capsys):
    """As in runs of earlier versions, whose checkpoints have no copy of it."""
    _unfinished(run)
    for kept in checkpoints(run):
        (kept / "best.safetensors").unlink()
        manifest = json.loads((kept / "manifest.json").read_text())
        del manifest["sha256"]["best.safetensors"]
        (kept / "manifest.json").write_text(json.dumps(manifest))
    (run / "best.safetensors").unlink()
    assert _resume(run) == 0
    assert "is judged in its place" in capsys.readouterr().err
    last = load_file(checkpoints(run)[-1] / "weights.safetensors")["weight"]
    assert _told(run) == {"cost": float((last - 2.0).square())}


@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("weights.safetensors", "flipped"),
        ("state.pt", "flipped"),
        ("best.safetensors", "flipped"),
        ("metrics.csv", "flipped"),
        ("manifest.json", "flipped"),
        ("state.pt", "missing"),
        ("manifest.json", "cut"),
    ],
)
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_serves(run, name, damage, capsys):
    whole, rows = _told(run), [row.split(",")[2:] for row in (run / "metrics.csv").read_text().splitlines()]
    _unfinished(run)
    file = checkpoints(run)[-1] / name
    if damage == "flipped":
        _flip(file, len(file.read_bytes()) // 2)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-3])
    else:
        file.unlink()
    before = _contents(run)
    assert _resume(run) == 1
    told = capsys.readouterr().err
    assert f"removing {checkpoints(run)[-1]}" in told
    assert _contents(run) == before
    shutil.rmtree(checkpoints(run)[-1])
    assert _resume(run) == 0
    assert _told(run) == whole
    assert [row.split(",")[2:] for row in (run / "metrics.csv").read_text().splitlines()] == rows


@pytest.mark.parametrize(
    ("damage", "finished"),
    [("flipped", False), ("letter", False), ("cut", False), ("missing", False), ("empty", False), ("flipped", True)],
)
def test_damaged_metrics_are_told_and_written_again(run, damage, finished, capsys):
    rows = (run / "metrics.csv").read_bytes()
    if not finished:
        _unfinished(run)
    changed = {"flipped": rows[:-4] + b"7" + rows[-3:], "letter": rows[:-4] + b"x" + rows[-3:], "cut": rows[:-9], "empty": b""}
    if damage == "missing":
        (run / "metrics.csv").unlink()
    else:
        assert changed[damage] != rows
        (run / "metrics.csv").write_bytes(changed[damage])
    assert _resume(run) == 0
    assert "metrics.csv" in capsys.readouterr().err
    assert (run / "metrics.csv").read_bytes() == rows


def test_a_flipped_configuration_is_told(run, capsys):
    text = (run / "config.json").read_text()
    changed = text.replace('"iterations": 6', '"iterations": 7')
    assert changed != text
    (run / "config.json").write_text(changed)
    assert _resume(run) == 1
    assert "its content is not what was written" in capsys.readouterr().err


@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("figures", "missing"),
        ("figures/history.png", "missing"),
        ("figures/history.png", "flipped"),
        ("report.html", "missing"),
        ("report.html", "cut"),
        ("summary.json", "cut"),
        ("summary.json", "flipped"),
    ],
)
def test_what_a_finished_run_has_lost_is_made_again(run, name, damage, capsys):
    whole = _told(run)
    if name == "figures":
        shutil.rmtree(run / name)
    elif damage == "missing":
        (run / name).unlink()
    elif damage == "cut":
        (run / name).write_bytes((run / name).read_bytes()[:-3])
    else:
        _flip(run / name, len((run / name).read_bytes()) // 2)
    assert lost_files(run)
    assert _resume(run) == 0
    found = capsys.readouterr()
    assert f"has lost {'figures/history.png' if name == 'figures' else name}" in found.err
    assert "is finished" not in found.out
    assert lost_files(run) == []
    assert _told(run) == whole
    assert _resume(run) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.parametrize("full", ["figures/history.png", "report.html", "summary.json"])
def test_a_disk_full_at_the_end_leaves_a_run_that_is_not_finished(tmp_path, monkeypatch, capsys, full):
    """The file that no longer finds room stops the run with a message; it is finished when there is room again."""
    write_text, savefig = Path.write_text, Figure.savefig

    def no_room(self, content, *args, **options):
        name = self if isinstance(self, Path) else content  # a figure is told where it goes
        if Path(name).name == f".{Path(full).name}.partial":
            raise OSError(28, "No space left on device")
        return (write_text if isinstance(self, Path) else savefig)(self, content, *args, **options)

    with monkeypatch.context() as context:
        context.setattr(Path, "write_text", no_room)
        context.setattr(Figure, "savefig", no_room)
        assert _start(tmp_path) == 1
    assert "No space left on device" in capsys.readouterr().err
    (run,) = (tmp_path / "slope").iterdir()
    assert not (run / "summary.json").exists()
    assert not list(run.rglob("*partial*"))
    assert _resume(run) == 0
    assert lost_files(run) == []
