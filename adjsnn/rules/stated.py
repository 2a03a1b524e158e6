"""What each rule says of itself: what it drops, what a synapse must know, its memory and cost. The table of docs/rules.md."""

from typing import NamedTuple

# What a synapse may have to know, beside its own weight.
OWN = "own pre, post"
LAYER_ERROR = "error of its layer"
OUTPUT_ERROR = "error of the output"
OTHERS = "weights of others"
REWARD = "one number for all"


class Stated(NamedTuple):
    """What a rule says of itself.

    B samples, T steps, N neurons and W weights of a layer.

    Attributes:
        drops: of the exact gradient.
        knows: what a synapse must know, of the constants of this module.
        memory: what is kept, and how it grows.
        cost: of one gradient, or of what is done in its place.
    """

    drops: str
    knows: tuple[str, ...]
    memory: str
    cost: str


EVENT_ADJOINT = Stated("nothing", (OWN, LAYER_ERROR, OTHERS), "the spikes and the current at each", "arrivals times neurons")
KNOWN = (OWN, LAYER_ERROR, OUTPUT_ERROR, OTHERS, REWARD)


def table(stated: dict[str, Stated]) -> str:
    """A table in Markdown, a rule a line.

    Args:
        stated: what each says of itself, by its name.
    """
    head = ["rule", "what it drops", *KNOWN, "memory", "cost"]
    rows = [
        [f"`{name}`", one.drops, *("×" if fact in one.knows else "" for fact in KNOWN), one.memory, one.cost]
        for name, one in stated.items()
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
