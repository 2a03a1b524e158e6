"""One layer as our numbers and as numbers of NIR's nodes, equations (7.1) to (7.4). Arrays of numpy, float64."""

from typing import Any, NamedTuple

import numpy as np

from adjsnn.errors import ConfigurationError
from adjsnn.interop.nir_maps import Shape, Shared, per_weight
from adjsnn.lif.conv import Conv2d, Pool2d

SILENT = 1e30  # the threshold of a layer that only integrates, NIR's CubaLI
SECOND = 1e3  # ms


class Dialect(NamedTuple):
    """How numbers are to be read.

    Attributes:
        spike: what a spike of S is: "impulse", of area 1 s; "sample", 1 for one step; "jump", what raises I by w_in S.
        dt: the step of "sample", ms.
        inputs: what the graph's input brings: "spikes" or "currents".
        target: the program that is to read it, or "equation".
    """

    spike: str
    dt: float | None = None
    inputs: str = "spikes"
    target: str = "equation"

    def jump(self, tau: np.ndarray) -> np.ndarray:
        """What a spike of weight 1 adds to a variable x with τ ẋ = -x + S, (7.1); τ in s."""
        if self.spike == "jump":
            return np.ones_like(tau)
        return 1.0 / tau if self.dt is None else (self.dt / SECOND) / tau


class Numbers(NamedTuple):
    """Of one layer as a LIFNetwork has them, times in ms; None for what it has not.

    Attributes:
        w_in: (N, M), or of maps the shared weights, flat.
        w_rec: (N, N).
        bias: (N,).
        tau_mem: (N,), None without leak.
        tau_syn: (N,), None where its input is a current.
        v_th: (N,).
        v_reset: (N,).
        delays: (M,) or (N, M).
        rec_delays: (N,) or (N, N).
        silent: whether it is the last layer and only integrates.
        shape: (N,), or of maps (C, H, W).
        part: of a layer of maps.
        below: (C, H, W) of the maps below, of such a layer.
    """

    w_in: np.ndarray
    w_rec: np.ndarray | None
    bias: np.ndarray
    tau_mem: np.ndarray | None
    tau_syn: np.ndarray | None
    v_th: np.ndarray
    v_reset: np.ndarray
    delays: np.ndarray | None = None
    rec_delays: np.ndarray | None = None
    silent: bool = False
    shape: Shape = ()
    part: Conv2d | Pool2d | None = None
    below: Shape = ()

    @property
    def shared(self) -> Shared | None:
        """The weights of a layer of maps."""
        below = self.below
        return None if self.part is None else Shared(self.part, (below[0], below[1], below[2]), self.w_in)


class Form(NamedTuple):
    """The same as it stands in a graph, times in s.

    Attributes:
        kind: of the node: CubaLIF, CubaLI, LIF or IF.
        neuron: its parameters by name, (N,).
        synapse: those of an LI node before it, or None.
        weight: (N, M), from the source to the node, or of maps the shared weights.
        recurrent: (N, N), from the node to itself, or None.
        added: (N,), what biases of Affine nodes bring.
        delay: (M,) or (N, M), or None.
        rec_delay: (N,) or (N, N), or None.
        shape: (N,) or (C, H, W).
        part: as of Numbers.
        below: as of Numbers.
    """

    kind: str
    neuron: dict[str, np.ndarray]
    synapse: dict[str, np.ndarray] | None
    weight: np.ndarray
    recurrent: np.ndarray | None
    added: np.ndarray
    delay: np.ndarray | None
    rec_delay: np.ndarray | None
    shape: Shape = ()
    part: Conv2d | Pool2d | None = None
    below: Shape = ()


class Readout(NamedTuple):
    """w_out (C, N), and τ_out in ms or in s."""

    weight: np.ndarray
    tau: float


def gain(form: Form, dialect: Dialect) -> np.ndarray:
    """What a weight of a Linear node is times this in our i, (N,), (7.2), (7.3)."""
    neuron, synapse = form.neuron, form.synapse
    if form.kind in ("CubaLIF", "CubaLI"):
        return neuron["r"] * neuron["w_in"] * dialect.jump(neuron["tau_syn"])
    r = neuron["r"] / SECOND if form.kind == "IF" else neuron["r"]  # currents of neurons without leak are per ms
    return r if synapse is None else r * synapse["r"] * dialect.jump(synapse["tau"])


def as_form(layer: Numbers, dialect: Dialect) -> Form:
    """Nodes of a layer in a dialect."""
    n = layer.v_th
    tau_mem, tau_syn = (None if x is None else x / SECOND for x in (layer.tau_mem, layer.tau_syn))
    neuron: dict[str, np.ndarray] = {"r": np.ones_like(n) if tau_mem is not None else np.full_like(n, SECOND)}
    neuron |= {} if tau_mem is None else {"v_leak": layer.bias}
    synapse, added = None, np.zeros_like(n) if tau_mem is not None else layer.bias / neuron["r"] * SECOND
    if tau_syn is not None and tau_mem is not None:
        kind = "CubaLI" if layer.silent else "CubaLIF"
        neuron |= {"tau_mem": tau_mem, "tau_syn": tau_syn, "w_in": 1.0 / dialect.jump(tau_syn)}
        if dialect.target != "equation":
            step = (dialect.dt or 0.0) / SECOND
            own = tau_mem / step - 1.0 if dialect.target == "rockpool" else tau_mem / step  # its step is τ_mem/(1 + r)
            neuron |= {"r": own, "w_in": tau_syn / step * (tau_mem / step / own)}
    else:
        kind = "IF" if tau_mem is None else "LIF"
        neuron |= {} if tau_mem is None else {"tau": tau_mem}
        if tau_syn is not None:
            synapse = {"tau": tau_syn, "r": 1.0 / dialect.jump(tau_syn), "v_leak": np.zeros_like(n)}
    if kind != "CubaLI":
        neuron |= {"v_threshold": n, "v_reset": layer.v_reset}
    delay, rec_delay = (None if x is None else x / SECOND for x in (layer.delays, layer.rec_delays))
    where = layer.shape, layer.part, layer.below
    form = Form(kind, neuron, synapse, layer.w_in, layer.w_rec, added, delay, rec_delay, *where)
    scale = gain(form, dialect)
    recurrent = None if layer.w_rec is None else layer.w_rec / scale[:, None]
    return form._replace(weight=layer.w_in / _by_weight(scale, form), recurrent=recurrent)


def _by_weight(scale: np.ndarray, form: Form) -> np.ndarray:
    """A factor of each neuron as one of each weight."""
    return scale[:, None] if form.part is None else per_weight(scale, form.shape[0], form.weight.size)


def as_numbers(form: Form, dialect: Dialect) -> Numbers:
    """The other way."""
    neuron, scale = form.neuron, gain(form, dialect)
    tau_mem = None if form.kind == "IF" else neuron.get("tau_mem", neuron.get("tau"))
    tau_syn = form.synapse["tau"] if form.synapse else neuron.get("tau_syn")
    n = neuron["r"]
    r = n / SECOND if form.kind == "IF" else n * neuron["w_in"] if form.kind.startswith("Cuba") else n
    r = r * form.synapse["r"] if form.synapse else r
    constant = r * form.added if bool(form.added.any()) else np.zeros_like(n)
    bias = neuron["v_leak"] + constant if "v_leak" in neuron and constant.any() else neuron.get("v_leak", constant)
    return Numbers(
        w_in=form.weight * _by_weight(scale, form),
        w_rec=None if form.recurrent is None else form.recurrent * scale[:, None],
        bias=bias,
        tau_mem=_ms(tau_mem),
        tau_syn=_ms(tau_syn),
        v_th=neuron.get("v_threshold", np.full_like(n, SILENT)),
        v_reset=neuron.get("v_reset", np.zeros_like(n)),
        delays=_ms(form.delay),
        rec_delays=_ms(form.rec_delay),
        silent=form.kind == "CubaLI",
        shape=form.shape,
        part=form.part,
        below=form.below,
    )


def _ms(seconds: np.ndarray | None) -> np.ndarray | None:
    return None if seconds is None else seconds * SECOND


def readout_form(readout: Readout, dialect: Dialect) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """weight (C, N), and τ and r (C,) of an LI node, (7.4)."""
    tau = np.full(len(readout.weight), readout.tau / SECOND)
    return readout.weight, tau, 1.0 / (dialect.jump(tau) * readout.tau)


def readout_numbers(weight: np.ndarray, tau: np.ndarray, r: np.ndarray, dialect: Dialect) -> Readout:
    """The other way."""
    ms = float(tau[0]) * SECOND
    return Readout(weight * (r * dialect.jump(tau) * ms)[:, None], ms)


def exact(kept: Any, found: Any, written: Any, write: Any) -> Any:
    """What was kept beside a graph, where it is still what the graph says; else what is found in it.

    Times in s times 1000 and quotients of weights are off by a rounding from what they were written from. `kept` holds the
    originals of some fields of `found`, and counts only if writing it again gives the graph to the bit.
    """
    if not kept:
        return found
    known = {k: np.asarray(v) for k, v in kept.items() if k in found._fields}
    if any(v.dtype.kind != "f" or v.shape != np.shape(getattr(found, k)) for k, v in known.items()):
        return found
    whole = found._replace(**known)
    return whole if same(write(whole), written) else found


def lost(original: Any, found: Any, dtype: str) -> dict[str, Any]:
    """Fields that do not come back to the bit, in the network's dtype."""

    def rounded(x: Any) -> Any:
        return x.astype(dtype) if isinstance(x, np.ndarray) else x

    pairs = zip(original._fields, original, found, strict=True)
    return {name: was for name, was, now in pairs if not same(rounded(was), rounded(now))}


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, but for the sign of zero."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and (np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b)


def dialect_of(spike: object, dt: float | None, inputs: object, target: str) -> Dialect:
    """Refuse words that no dialect has."""
    if spike not in ("impulse", "sample", "jump"):
        raise ConfigurationError(
            f"spike={spike!r}",
            '"impulse" of area 1 s, "sample" of height 1 for a step dt, or "jump" of I by w_in',
            'spike="impulse"',
        )
    if inputs not in ("spikes", "currents"):
        raise ConfigurationError(f"inputs={inputs!r}", '"spikes" or "currents"', 'inputs="spikes"')
    if (spike == "sample") != (dt is not None):
        raise ConfigurationError(
            f"spike={spike!r} with dt={dt}", "a step dt in ms for samples, and none else", 'spike="sample", dt=0.1'
        )
    return Dialect(str(spike), dt, str(inputs), target)
