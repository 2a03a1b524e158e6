"""What a LIF layer is beside its parameters: receptors, leak, reset and wiring."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from adjsnn.checks import count, flag, is_flag, number
from adjsnn.errors import ConfigurationError
from adjsnn.lif.synapses import Synapses

RESETS = {"to": 0.0, "by": 1.0}


class Structure(NamedTuple):
    """Of one layer.

    Attributes:
        sources: M, the number of neurons that feed it.
        receptors: K, or None for one, without a dimension of its own.
        leak: whether v decays.
        reset: ρ, what is left at a spike of the distance of v from v_th, (6.2): 0 for "to", 1 for "by".
        synapses: of its inputs, or None for a weight for each pair.
        rec_synapses: of its own neurons, likewise.
    """

    sources: int
    receptors: int | None = None
    leak: bool = True
    reset: float = 0.0
    synapses: Synapses | None = None
    rec_synapses: Synapses | None = None

    @property
    def ordinary(self) -> bool:
        """Whether nothing of it is beyond (2.1) and (2.2) and weights for each pair."""
        return self[1:] == (None, True, 0.0, None, None)

    @property
    def currents(self) -> int:
        """K, the number of synaptic currents of a neuron."""
        return self.receptors or 1


def structures(
    sources: Sequence[int], receptors: object, leak: object, reset: object, synapses: object, rec_synapses: object
) -> tuple[Structure, ...]:
    """One for each layer; each argument but the first one for all of them or a tuple with one for each.

    Raises:
        ConfigurationError: what is no number of receptors, no flag, no reset, or no Synapses.
    """
    layers = len(sources)

    def each(name: str, value: object) -> tuple[Any, ...]:
        entries = value if isinstance(value, tuple) else (value,) * layers
        if len(entries) != layers:
            raise ConfigurationError(
                f"{name} with {len(entries)} entries", f"one for each of {layers} layers", f"a tuple of {name}"
            )
        return entries

    for name, value in (("synapses", synapses), ("rec_synapses", rec_synapses)):
        if value is not None and not isinstance(value, tuple) and layers > 1:
            raise ConfigurationError(
                f"{name} of one layer for {layers}", "a tuple, None for a dense layer", f"{name}=(x, None)"
            )
    columns = zip(
        *(
            each(name, value)
            for name, value in (
                ("receptors", receptors),
                ("leak", leak),
                ("reset", reset),
                ("synapses", synapses),
                ("rec_synapses", rec_synapses),
            )
        ),
        strict=True,
    )
    return tuple(
        Structure(
            m,
            None if k is None else count("receptors", k, remedy="receptors=2"),
            flag("leak", leaks),
            _reset(back),
            _synapses("synapses", wired),
            _synapses("rec_synapses", rec_wired),
        )
        for m, (k, leaks, back, wired, rec_wired) in zip(sources, columns, strict=True)
    )


def _reset(given: object) -> float:
    expected, remedy = '"to", "by", or what is left of the distance from v_th, 0 to 1', 'reset="to"'
    if isinstance(given, str):
        if given not in RESETS:
            raise ConfigurationError(f"reset={given!r}", expected, remedy)
        return RESETS[given]
    if given is None or is_flag(given):
        raise ConfigurationError(f"reset={given!r}", expected, remedy)
    factor = number("reset", given, expected, remedy)
    if not 0.0 <= factor <= 1.0:
        raise ConfigurationError(f"reset={factor!r}", expected, remedy)
    return factor


def _synapses(name: str, given: object) -> Synapses | None:
    if given is not None and not isinstance(given, Synapses):
        raise ConfigurationError(f"{name} of type {type(given).__name__}", "adjsnn.Synapses", "Synapses(pre, post)")
    return given
