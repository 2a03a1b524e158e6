"""What `peers.py` measures: problems, and a row for each way a library takes their gradient, with the versions it runs on."""

from typing import Any, NamedTuple

TORCH = ("torch==2.13.0", "numpy==2.4.6")
JAX = ("jax==0.10.2", "jaxlib==0.10.2", "numpy==2.4.6")
DIFFRAX = ("diffrax==0.7.2", "equinox==0.13.8", "optimistix==0.1.0", *JAX)
COUNTS = "not comparable: the loss is of spike counts, and the derivative of a spike a surrogate"
OWN = "not comparable: another step and surrogate"
FORWARD = "no gradient"


class Problem(NamedTuple):
    title: str
    text: str
    ours: str  # what adjsnn computes
    dtype: str = "float64"  # in which it is timed


class Row(NamedTuple):
    library: str
    script: str
    problem: str
    packages: tuple[str, ...]  # of its environment; none for that of adjsnn
    what: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    why_not: str = ""  # why its gradient is not compared
    only: str = ""  # which gradients are compared, where not all are


PROBLEMS = {
    "gated": Problem(
        "A network with gated synapses",
        "The network of `gated_gradient.py`: 128 QIF neurons, batch 64, 1000 Euler steps, float32, mean square of the readout.",
        "DiscreteAdjoint",
        "float32",
    ),
    "lif": Problem(
        "LIF neurons",
        "The network of `lif_gradient.py`: 150 samples of 5-120-3, τ_m = 20 ms, τ_s = 5 ms, 60 ms, float32, cross-entropy of "
        "first output spikes. Libraries with a grid put input spikes on it and take a cross-entropy of spike counts.",
        "EventAdjoint, exact, of located spike times",
        "float32",
    ),
    "clock": Problem(
        "LIF neurons on a clock, surrogate gradients",
        "The same network in steps of 0.5 ms, float32, cross-entropy of output spike counts, surrogates of each library's own: "
        "the same work in all, but each has its own step and its own surrogate, so that gradients are not compared.",
        "rules.SurrogateBPTT, exact flow between steps",
        "float32",
    ),
    "if": Problem(
        "Neurons without a leak",
        "150 samples of 5-120-3, v̇ = Σ w over the spikes so far, 60 ms, float32, mean square of all output spike times. adjsnn "
        "has no neuron without leaks: its time constants are 10⁹ ms here, which alone changes gradients by some 1e-7.",
        "EventAdjoint",
        "float32",
    ),
    "single-5": Problem(
        "At most one spike, small",
        "150 samples of 5-120-3, each input and neuron spikes at most once within 50 ms, τ_m = 15 ms, τ_s = 4 ms, float32, "
        "cross-entropy of first output spikes. In adjsnn neurons are refractory after their spike for longer than the trial.",
        "EventAdjoint",
        "float32",
    ),
    "single-784": Problem(
        "At most one spike, large",
        "The same with 16 samples of 784-350-10.",
        "EventAdjoint",
        "float32",
    ),
    "smooth-rk4": Problem(
        "A smooth system, fixed steps",
        "64 samples of 32 leaky tanh units (`hybrid_gradient.py`), 200 steps of 1 ms by the classical Runge–Kutta method, "
        "float64, mean square of all outputs. torchdiffeq's rk4 is another method of order 4, the 3/8 rule.",
        "DiscreteAdjoint",
    ),
    "smooth-dopri5": Problem(
        "A smooth system, adaptive steps",
        "The same by dopri5 with tolerances of 1e-6, mean square of the first state and the last. Libraries choose their own "
        "steps, so gradients differ by the errors of the solutions.",
        "DiscreteAdjoint, steps of each sample",
    ),
    "balls": Problem(
        "Events: bouncing balls",
        "256 balls for 2 s (`hybrid_gradient.py`), dopri5 with tolerances of 1e-6, float64, mean square of first and last "
        "states and the sum of contact times.",
        "DiscreteAdjoint",
    ),
    "izhikevich": Problem(
        "Events: Izhikevich neurons",
        "64 neurons for 200 ms (`hybrid_gradient.py`), dopri5 with tolerances of 1e-5, float64, mean square of first and last "
        "states and the sum of spike times. Gradients and last states differ by the errors of the solutions.",
        "DiscreteAdjoint",
    ),
}


def _on_grid(library: str, packages: tuple[str, ...], what: str, step: float, problem: str = "lif", why: str = COUNTS) -> Row:
    options = {"library": library, "step": step}
    return Row(library, "on_grid.py", problem, packages, f"{what}, steps of {step} ms", options, why)


def _units(library: str, problem: str, packages: tuple[str, ...], what: str, **options: Any) -> Row:
    options |= {"library": library, "method": problem.removeprefix("smooth-")}
    return Row(library, "units.py", problem, packages, what, options)


def _events(problem: str, samples: int) -> list[Row]:
    """Of libraries without events in a batch the first few samples."""
    first = "by y0 and all parameters"
    return [
        Row("adjsnn", "adjsnn_side.py", problem, (), "forward run alone", {"problem": f"{problem}, forward"}, FORWARD),
        Row(
            "diffrax", "events.py", problem, DIFFRAX,
            "a solve to each event in turn, their largest number known beforehand; vmap, jit, RecursiveCheckpointAdjoint",
            {"library": "diffrax"},
        ),
        Row(
            "torchdiffeq", "events.py", problem, ("torchdiffeq==0.2.5", *TORCH),
            f"odeint_event on the tape, {first}, sample after sample", {"library": "torchdiffeq", "samples": samples},
            only=" (y0)",
        ),
        Row(
            "scikit-sundae", "events.py", problem, ("scikit-sundae==1.2.0", "numpy==2.4.6"),
            "forward run alone, CVODE (Adams), sample after sample", {"library": "scikit-sundae"}, FORWARD,
        ),
    ]  # fmt: skip


ROWS = [
    Row("jax", "jax_scan.py", "gated", JAX, "lax.scan and grad, jitted, as a user would write it"),
    Row("jaxsnn", "jaxsnn_lif.py", "lif", ("jaxsnn==0.3.0", *JAX), "EventProp, spike times by Newton's method, jitted"),
    *(
        _on_grid(library, (f"{library}=={version}", *TORCH), what, step)
        for library, version, what in (
            ("norse", "1.1.0", "Euler steps with a surrogate (SuperSpike)"),
            ("snntorch", "1.0.0", "exponential steps with a surrogate (arctangent)"),
        )
        for step in (0.5, 0.1)
    ),
    *(
        _on_grid(library, (f"{library}=={version}", *TORCH), what, 0.5, "clock", OWN)
        for library, version, what in (
            ("norse", "1.1.0", "Euler steps, SuperSpike"),
            ("snntorch", "1.0.0", "exponential steps, arctangent"),
            ("spikingjelly", "2.0.0", "CUBALIFNode, all steps in one call, arctangent"),
        )
    ),
    Row("spikingjelly", "spikingjelly_if.py", "if", ("spikingjelly==2.0.0", *TORCH), "timing_based.srm, exact spike times"),
    *(
        Row("exact-snn-nn", "exact_snn_first.py", name, ("exact-snn-nn==3.2.3", *TORCH), "ExactEventLinear, exact spike times")
        for name in ("single-5", "single-784")
    ),
    *(
        _units("torchdiffeq", name, ("torchdiffeq==0.2.5", *TORCH), what, adjoint=adjoint)
        for name in ("smooth-rk4", "smooth-dopri5")
        for adjoint, what in (("tape", "odeint on the tape"), ("adjoint", "odeint_adjoint"))
    ),
    _units("diffrax", "smooth-rk4", DIFFRAX, "RecursiveCheckpointAdjoint, jitted"),
    _units("torchode", "smooth-dopri5", ("torchode==1.0.1", *TORCH), "AutoDiffAdjoint, steps of each sample", adjoint="tape"),
    _units("torchode", "smooth-dopri5", ("torchode==1.0.1", *TORCH), "JointBacksolveAdjoint", adjoint="backsolve"),
    _units("diffrax", "smooth-dopri5", DIFFRAX, "RecursiveCheckpointAdjoint, steps of each sample by vmap, jitted"),
    _units("diffrax", "smooth-dopri5", DIFFRAX, "RecursiveCheckpointAdjoint, steps of all samples, jitted", joint=True),
    _units(
        "gradsolve", "smooth-dopri5", ("gradsolve==0.2.1", *JAX), "Tsitouras 5, steps recorded and replayed",
        adjoint="record",
    ),
    _units(
        "gradsolve", "smooth-dopri5", ("gradsolve==0.2.1", *JAX), "Tsitouras 5, the replay alone, jitted",
        adjoint="replay",
    ),
    *(
        Row("adjsnn.Equations", "adjsnn_side.py", name, (), "the same as text, compiled", {"problem": f"{name}, text"})
        for name in ("smooth-rk4", "smooth-dopri5", "balls", "izhikevich")
    ),
    *_events("balls", 16),
    *_events("izhikevich", 4),
]  # fmt: skip
