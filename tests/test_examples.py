"""The examples run, and what they train improves."""

import importlib.util
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
SLOW = pytest.mark.slow


def example(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    losses = example(name).main()
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", ["fitzhugh_nagumo", "morris_lecar", "neural_ode", "adaptive_neuron"])
def test_they_are_short(name):
    lines = (FOLDER / f"{name}.py").read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(code) < 40


def test_a_balanced_network_and_the_gradient_of_its_rate(capsys):
    """Small. Gradients of lists of synapses are judged in tests/lif/glif."""
    figures = example("balanced_network").main(200, 20, 60.0)
    assert 5.0 < figures["rate"] < 100.0
    assert figures["spread"] > 0.0
    assert "200 neurons, 4000 recurrent synapses" in capsys.readouterr().out


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("iterations", "least"), [(60, 0.5), pytest.param(1500, 0.92, marks=SLOW)])
def test_digits_from_default_weights(iterations, least, capsys):
    """At random a tenth is right. Of 1500 iterations the best come to 92 % and more, whatever the processor rounds."""
    assert example("digits_classifier").main(seed=0, iterations=iterations) >= least
    assert re.search(r"input weights ×.*\nheld out: [\d.]+% right; ", capsys.readouterr().out)
