"""The law of the house, on imports.

Ground imports ground; a family imports itself and the ground; the rest imports downward; what is compiled for one kind of
machine is known to the engine of its family alone.
"""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import adjsnn

ROOT = Path(adjsnn.__file__).parent
GROUND = {
    "adjoints", "bodies", "checks", "coincidence", "collate", "colours", "errors", "grid", "kept", "numerics", "reparametrized",
    "shapes", "signals", "solutions", "spikes", "trains_check", "untraced",
}  # fmt: skip
FAMILIES = {"gated", "lif", "hybrid"}
ABOVE = (
    "equations",
    "charge_form",
    "losses",
    "remedies",
    "solve",
    "starting",
    "rules",
    "gradcheck",
    "plotting",
    "interop",
    "training",
    "ahead",
    "doctor",
    "__main__",
)
BODIES = ("cpu", "cuda")
# What stands once, and loops for a GPU take from those for the CPU: the mathematics of a neuron, which numba compiles for
# either machine, the form of a Runge–Kutta method, and which networks are covered.
ONCE = {"adjsnn.lif.cpu.flow"} | {
    f"adjsnn.gated.cpu.{x}"
    for x in ("arguments", "covered", "membranes", "runge_kutta", "runge_kutta_adjoint", "tableau", "vectors")
}
MODULES = {
    ".".join(["adjsnn", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[str]:
    """Modules of the library that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adjsnn"):
            inner = {f"{node.module}.{x.name}" for x in node.names}
            found |= (inner & MODULES.keys()) or {node.module}
        elif isinstance(node, ast.Import):
            found |= {x.name for x in node.names if x.name.startswith("adjsnn")}
    return frozenset(found)


def room(module: str) -> str:
    return [*module.split("."), ""][1]


def allowed(here: str) -> set[str]:
    if here in GROUND:
        return GROUND
    if here in FAMILIES:
        return GROUND | {here}
    return GROUND | FAMILIES | set(ABOVE[: ABOVE.index(here) + 1])


def test_every_room_is_known():
    assert {room(name) for name in MODULES} - {""} == GROUND | FAMILIES | set(ABOVE)


def test_imports_keep_the_law():
    for name, path in MODULES.items():
        if name != "adjsnn":
            rooms = {room(x) for x in imports(path)} - {""}
            assert rooms <= allowed(room(name)), f"{name} imports {sorted(rooms - allowed(room(name)))}"


def test_rules_that_are_adjoints_know_no_entry():
    """What is `adjoint=` is handed a problem; `solve` is for those that train a network themselves."""
    adjoints = [
        name
        for name, path in MODULES.items()
        if room(name) == "rules" and any(f"def run_{family}(" in path.read_text() for family in FAMILIES)
    ]
    assert len(adjoints) >= 4
    for name in adjoints:
        assert not {"adjsnn.solve", "adjsnn.losses"} & imports(MODULES[name]), name


def test_bodies_are_known_to_their_engine_alone():
    for name, path in MODULES.items():
        for imported in imports(path):
            family, body, *_ = [*imported.split(".")[1:], "", ""]
            if family in FAMILIES and body in BODIES:
                inside = name.startswith(f"adjsnn.{family}.{body}")
                inside |= imported in ONCE and name.startswith(f"adjsnn.{family}.cuda")
                assert inside or name == f"adjsnn.{family}.engine", f"{name} imports {imported}"


def test_no_circle():
    TopologicalSorter({name: imports(path) - {"adjsnn", name} for name, path in MODULES.items()}).prepare()


@cache
def functions() -> list[tuple[str, ast.FunctionDef]]:
    return [
        (f"{name}.{node.name}", node)
        for name, path in MODULES.items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef)
    ]


def test_compiled_loops_take_few_arguments():
    """By name, in tuples: among many positions two arrays of one shape are exchanged unseen."""

    def is_loop(node: ast.FunctionDef) -> bool:
        return any(word in ast.unparse(x) for x in node.decorator_list for word in ("compiled(", "cuda.jit"))

    loops = [(name, node) for name, node in functions() if is_loop(node)]
    assert len(loops) > 50
    assert {f"adjsnn.{x}.forward" for body in BODIES for x in (f"lif.{body}.feedforward", f"gated.{body}.euler")} <= {
        name for name, _ in loops
    }
    assert {name: len(node.args.args) for name, node in loops if len(node.args.args) > 12} == {}


def test_functions_can_be_read_in_one_sitting():
    def length(node: ast.FunctionDef) -> int:
        body = node.body[1:] if ast.get_docstring(node) else node.body
        return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0

    assert {name: length(node) for name, node in functions() if room(name) in FAMILIES and length(node) > 60} == {}
