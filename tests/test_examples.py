"""The examples run, and what they train improves."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
SLOW = pytest.mark.slow


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("fitzhugh_nagumo", marks=SLOW),
        pytest.param("morris_lecar", marks=SLOW),
        "neural_ode",
        pytest.param("adaptive_neuron", marks=SLOW),
    ],
)
def test_the_loss_falls(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    losses = module.main()
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", ["fitzhugh_nagumo", "morris_lecar", "neural_ode", "adaptive_neuron"])
def test_they_are_short(name):
    lines = (FOLDER / f"{name}.py").read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(code) < 40


def test_a_balanced_network_and_the_gradient_of_its_rate(capsys):
    """Small. Gradients of lists of synapses are judged in tests/lif/glif."""
    spec = importlib.util.spec_from_file_location("balanced", FOLDER / "balanced_network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    figures = module.main(200, 20, 60.0)
    assert 5.0 < figures["rate"] < 100.0
    assert figures["spread"] > 0.0
    assert "200 neurons, 4000 recurrent synapses" in capsys.readouterr().out
