"""From text to statements, in the habits of Brian: lines, names, units and flags, and places that errors point at."""

import difflib
import keyword
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple, NoReturn

from adjsnn.equations.functions import NAMES
from adjsnn.errors import ConfigurationError

DERIVATIVE = re.compile(r"\s*d\s*([^\W\d]\w*)\s*/\s*dt\s*$")
RESERVED = {"t", "dt", "xi", "fired", "pi", "e", "inf", "nan", "i", "N", *keyword.kwlist}
LONGEST = 100_000  # characters of a text: Python's parser is not made for more
QUOTED = 80  # characters of a text that a message shows at most
FLAGS = {
    "unless refractory": "a guard of its own that ends the refractory time, and a state that stops the flow until then",
    "event-driven": "the equation as it is: states are solved for at any time",
    "summed": "sum(x), or W @ x",
    "linked": "an input, or the states of both groups in one text",
}


def short(text: str, column: int = 0) -> str:
    """As much of a text as a message shows, around a column."""
    first = max(min(column - QUOTED // 2, len(text) - QUOTED), 0)
    part = text[first : first + QUOTED]
    return ("…" if first else "") + part.strip() + ("…" if first + QUOTED < len(text) else "")


class Place(NamedTuple):
    """Where something stands: the line as it was written, its number from 1 on, and the column from 0 on."""

    line: str
    number: int
    column: int = 0

    def refuse(self, what: str, expected: str, remedy: str) -> NoReturn:
        """Raise ConfigurationError that quotes the line and points at the place."""
        quoted = short(self.line, self.column)
        raise ConfigurationError(f"{what} at line {self.number}, column {self.column + 1} of {quoted!r}", expected, remedy)

    def at(self, column: int) -> "Place":
        """Another column of the same line."""
        return self._replace(column=self.column + column)


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """What to try instead of an unknown name."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"{close[0]!r}" if close else otherwise


NOWHERE = Place("", 1)


class Statement(NamedTuple):
    """A line of equations.

    Fields: kind "derivative", "subexpression" or "declaration"; name; the text of the right side and where it begins; the unit
    that was given, or None.
    """

    kind: str
    name: str
    right: str
    place: Place
    unit: str | None


class Assignment(NamedTuple):
    """One assignment of a reset: name, the operator "", "+", "-", "*" or "/", right side and its place."""

    name: str
    operator: str
    right: str
    place: Place


def lines(text: object, what: str) -> Iterator[Place]:
    """The lines of a text that hold something, without comments, those that go on joined; `column` is where each begins."""
    if not isinstance(text, str):
        raise ConfigurationError(f"{what} of type {type(text).__name__}", "text", f'{what}="..."')
    if len(text) > LONGEST:
        raise ConfigurationError(f"{what} of {len(text)} characters", f"at most {LONGEST}", "fewer equations, or vectors")
    held, first = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#", 1)[0].rstrip()
        if not held and not line.strip():
            continue
        first = first if held else number
        goes_on = line.endswith("\\")
        held += line.removesuffix("\\") if goes_on else line
        if goes_on or held.count("(") > held.count(")"):
            held += " "
            continue
        yield Place(held, first)
        held = ""
    if held:
        Place(held, first).refuse("a line that does not end", "as many closing as opening parentheses", "closing them")


def statements(text: object) -> list[Statement]:
    """The equations of a text."""
    return [_statement(place) for place in lines(text, "equations")]


def _statement(place: Place) -> Statement:
    line, colon, tail = place.line.partition(":")
    if line.count("(") > line.count(")"):  # of an expression, which will be refused
        line, colon = place.line, ""
    unit = _unit(tail, place.at(len(line) + 1)) if colon else None
    left, equals, right = line.partition("=")
    if not equals:
        return Statement("declaration", _name(left, place), "", place, unit)
    begin = len(left) + 1
    derivative = DERIVATIVE.match(left)
    name = derivative[1] if derivative else left
    return Statement("derivative" if derivative else "subexpression", _name(name, place), right, place.at(begin), unit)


def _unit(tail: str, place: Place) -> str:
    """The unit after a colon; flags in parentheses after it are looked at and left out."""
    unit, flags = tail.strip(), ""
    head, opens, last = unit.rpartition("(")
    if opens and last.endswith(")") and (not head or head[-1].isspace()):
        unit, flags = head.strip(), last[:-1]
    for flag in filter(None, map(str.strip, flags.split(","))):
        if flag not in ("constant", "shared", "constant over dt"):
            remedy = FLAGS.get(flag.removesuffix(" over dt"), "leaving it out")
            place.at(tail.index("(")).refuse(f"the flag ({short(flag)})", "(constant) or (shared) at most", remedy)
    if not unit:
        place.refuse("no unit after the colon", "a unit, as in dv/dt = ... : volt", "leaving the colon out")
    return unit


def assignments(text: object, what: str = "reset") -> list[Assignment]:
    """The assignments of a reset, one a line or separated by semicolons."""
    found = []
    for place in lines(text, what):
        column = 0
        for part in place.line.split(";"):
            if part.strip():
                found.append(_assignment(part, place.at(column)))
            column += len(part) + 1
    return found


def _assignment(part: str, place: Place) -> Assignment:
    left, equals, right = part.partition("=")
    if not equals or right.startswith("="):
        place.refuse(f"{part.strip()!r}", "an assignment", "v = c, or w += d")
    operator = left.rstrip()[-1:] if left.rstrip()[-1:] in tuple("+-*/") else ""
    name = left.rstrip().removesuffix(operator) if operator else left
    return Assignment(_name(name, place), operator, right, place.at(len(left) + 1))


def _name(text: str, place: Place) -> str:
    name = text.strip()
    column = len(text) - len(text.lstrip())
    if not name.isidentifier():
        place.at(column).refuse(f"{short(name)!r}", "a name, as in dv/dt = ..., x = ...", "one equation a line")
    if (name := plain_name(name)) is None:
        name = text.strip()
        place.at(column).refuse(f"{short(name)!r}, which has a meaning already,", "another name", f"{name.strip('_')}_0")
    return name


def plain_name(name: object) -> str | None:
    """A name as Python's parser has it, in its usual letters; None for what is no name, or has a meaning already."""
    if not isinstance(name, str) or not name.isidentifier():
        return None
    name = unicodedata.normalize("NFKC", name)
    return None if name in RESERVED or name in NAMES or name.startswith("_") else name
