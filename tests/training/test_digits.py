"""Digits by convolution: its code, its moved pictures, its remedies, and a short run."""

import json
import sys
from pathlib import Path

import pytest
import torch

from adjsnn.training import main

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import digits  # noqa: E402  the folder of scripts is not a package
from digits import Config, Digits, encode, moved  # noqa: E402
from pictures import shuffled_digits  # noqa: E402
from yin_yang import wake  # noqa: E402


def test_each_pixel_spikes_early_in_one_map_and_late_in_the_other():
    pictures, _ = shuffled_digits(0)
    x = encode(pictures[:5], 20.0)
    assert (x.n_neurons, x.time.shape) == (128, (5, 128))
    times = torch.zeros_like(x.time).scatter(1, x.idx, x.time).view(5, 2, 8, 8)
    torch.testing.assert_close(times[:, 0], 20.0 * (1.0 - pictures[:5].float()))
    torch.testing.assert_close(times.sum(1), torch.full((5, 8, 8), 20.0))


def test_the_parts_of_the_data_are_apart():
    task, (pictures, labels) = Digits(Config(seed=3)), shuffled_digits(3)
    both = torch.cat([task.held["held_out"], task.held["validation"], task.pictures])
    assert torch.equal(both, pictures)
    assert len(task.pictures) == 1077
    assert torch.equal(task.data["validation"].labels, labels[360:720])
    assert torch.equal(task.labels, labels[720:])


def test_pictures_are_moved_right_and_down():
    picture = torch.zeros(1, 8, 8, dtype=torch.float64)
    picture[0, 3, 4] = 1.0
    still, whole, part = (moved(picture, torch.tensor([shift])) for shift in ((0.0, 0.0), (2.0, 1.0), (0.25, 0.0)))
    torch.testing.assert_close(still, picture, rtol=0, atol=1e-12)
    torch.testing.assert_close(whole, picture.roll((1, 2), (1, 2)), rtol=0, atol=1e-12)
    torch.testing.assert_close(part[0, 3, 4:6], torch.tensor([0.75, 0.25]).double())
    assert float(moved(torch.ones(1, 8, 8), torch.tensor([[1.0, 0.0]]))[0, :, 0].max()) < 1e-6


def test_pictures_are_turned_clockwise_and_stretched_about_their_middle():
    top = torch.zeros(2, 8, 8, dtype=torch.float64)
    top[:, 1, 2:5] = 1.0
    turned = moved(top, torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([90.0, 90.0]))
    expected = top[0].rot90(-1)
    torch.testing.assert_close(turned, torch.stack([expected, expected.roll(1, 0)]), rtol=0, atol=1e-6)  # cos 90° in float32
    block = torch.zeros(1, 8, 8, dtype=torch.float64)
    block[0, 3:5, 3:5] = 1.0
    larger = moved(block, torch.zeros(1, 2), sizes=torch.tensor([2.0]))
    assert float(larger.sum()) == pytest.approx(16.0)  # four times the area
    torch.testing.assert_close(larger, larger.flip(1), rtol=0, atol=1e-12)


def test_hidden_neurons_spike_at_the_start_whatever_the_picture():
    task = Digits(Config())
    with torch.no_grad():
        sol = task.solve(task.network(), task.data["validation"].x)
    per_picture = (sol.spike_counts(0) > 0).double().mean(1)
    assert float(per_picture.min()) > 0.5


def test_a_silent_output_neuron_is_woken():
    task = Digits(Config(batch=8))
    net = task.network()
    with torch.no_grad():
        net.w_in[-1][4].fill_(-1.0)
    batch = task.place(task.batch(task.generator(), 0))
    labels = torch.full_like(batch.labels, 4)
    before = net.w_in[-1].detach().clone()
    wake(net, task.solve(net, batch.x), labels, 0.1)
    change = net.w_in[-1].detach() - before
    assert bool((change[4] >= 0.0).all())
    assert float(change[4].max()) == pytest.approx(0.1, rel=1e-4)
    assert not bool(change[torch.arange(10) != 4].any())


def test_a_short_run(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "HELD_OUT", 16)
    assert main(Digits, argv=["--iterations", "2", "--batch", "4", "--maps", "2", "--runs", str(tmp_path)]) == 0
    (run,) = (tmp_path / "digits").iterdir()
    assert {path.stem for path in (run / "figures").iterdir()} == {"kernels", "wrong", "raster", "events", "history"}
    assert 0.0 <= json.loads((run / "summary.json").read_text())["held_out"]["accuracy"] <= 1.0


def test_a_batch_beyond_the_pictures(tmp_path, capsys):
    assert main(Digits, argv=["--batch", "2000", "--runs", str(tmp_path)]) == 1
    assert "1 to 1077" in capsys.readouterr().err
