"""Other libraries beside adjsnn in the benchmark of LIF gradients, where they are installed."""

import sys
from pathlib import Path

import pytest
import torch

from adjsnn import LIFNetwork, SpikeTrains

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import lif_jaxsnn  # the folder of scripts is not a package
import lif_peers

T_END = 60.0


def _problem(tau_syn: float = 5.0):
    generator = torch.Generator().manual_seed(1)
    lif = LIFNetwork(3, (8, 2), tau_syn=tau_syn, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        lif.w_in[0].mul_(2.0)
        lif.w_in[1].mul_(1.5)
    x = SpikeTrains.latency(torch.rand(4, 3, generator=generator, dtype=torch.float64), 30.0)
    return lif, x, torch.tensor([0, 1, 1, 0]), T_END


@pytest.mark.parametrize("name", lif_peers.PEERS)
def test_a_library_that_is_missing_is_said_to_be(name, monkeypatch):
    monkeypatch.setattr(lif_peers, "find_spec", lambda _: None)
    assert lif_peers.row(lif_peers.measure(name, *_problem(), repeats=1), 1.0) == f"| {name} | - | - | - | not installed |"


@pytest.mark.parametrize(("tau_syn", "off"), [(5.0, 1e-6), (10.0, 1e-11), (20.0, 1e-6)])
def test_gradient_of_jaxsnn(tau_syn, off):
    pytest.importorskip("jaxsnn")
    problem = _problem(tau_syn)
    spikes, found = lif_jaxsnn.jaxsnn(*problem)()
    assert spikes > 8
    assert all(a.dtype == torch.float64 and a.shape == w.shape for a, w in zip(found, problem[0].w_in, strict=True))
    assert lif_peers.distance(found, *problem) < off


def test_jaxsnn_does_not_drop_spikes_without_a_word(monkeypatch):
    pytest.importorskip("jaxsnn")
    monkeypatch.setattr(lif_jaxsnn, "SPARE", -3)
    gradient = lif_jaxsnn.jaxsnn(*_problem())
    with pytest.raises(RuntimeError, match=r"layers \[0\] fill"):
        gradient()
