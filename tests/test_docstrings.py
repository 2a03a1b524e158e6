"""Docstrings are in the form that documentation sites parse (Google style): one name a line, and the names there are."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import adjsnn

ROOT = Path(adjsnn.__file__).parent
SECTION = re.compile(r"^( *)(Args|Attributes|Raises|Returns|Yields):$")
# Names that users import, and modules that they import as a whole.
FACES = ("adjsnn", "adjsnn.gradcheck", "adjsnn.interop", "adjsnn.training")
USERS = {name for module in FACES for name in import_module(module).__all__}
OF_USERS = {"losses.py", "models.py", "remedies.py", "signals.py", "plotting.py"}
ENTRY = re.compile(r"\*{0,2}(\w+): \S")


def entries(docstring: str) -> Iterator[tuple[str, str]]:
    """Section and first line of each entry."""
    section, inside = None, 0
    for line in docstring.splitlines():
        if head := SECTION.match(line):
            section, inside = head[2], len(head[1]) + 4
        elif line.strip() and len(line) - len(line.lstrip()) < inside:
            section = None
        elif section and line.strip() and len(line) - len(line.lstrip()) == inside:
            yield section, line.strip()


def signature(node: ast.FunctionDef) -> set[str]:
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {x.arg for x in every if x is not None} - {"self", "cls", "ctx"}


def of_class(node: ast.ClassDef) -> set[str]:
    """Fields, properties, arguments of __init__, and what its methods set."""
    names = set()
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef):
            names |= signature(part) if part.name == "__init__" else {part.name}
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names.add(part.id)
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self":
            names.add(part.attr)
    return names


def documented(tree: ast.Module, path: Path) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, bool]]:
    """Classes and functions of a module, and whether users call them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            public = node.name in USERS or (path.name in OF_USERS and node in tree.body)
            yield node, public and not node.name.startswith("_")
        if isinstance(node, ast.ClassDef) and node.name in USERS:
            yield from ((part, not part.name.startswith("_")) for part in node.body if isinstance(part, ast.FunctionDef))


def inherited(tree: ast.Module, node: ast.ClassDef) -> set[str]:
    """What a class has, with what it takes from classes of the same module."""
    bases = {x.id for x in node.bases if isinstance(x, ast.Name)}
    above = [x for x in tree.body if isinstance(x, ast.ClassDef) and x.name in bases]
    return of_class(node).union(*(inherited(tree, x) for x in above))


def faults(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node, public in documented(tree, path):
        is_class = isinstance(node, ast.ClassDef)
        names, named = inherited(tree, node) if is_class else signature(node), set()
        for section, line in entries(ast.get_docstring(node) or ""):
            if section not in ("Args", "Attributes"):
                continue
            name = ENTRY.match(line)
            if name is None:
                yield f"{path.name}: {node.name}: {section}: {line!r} is no entry of one name"
            elif name[1] not in names:
                yield f"{path.name}: {node.name} has no {name[1]}"
            elif section == "Args":
                named.add(name[1])
        if public and named and not is_class and named != names:
            yield f"{path.name}: {node.name} says nothing of {sorted(names - named)}"


def test_arguments_and_attributes_are_listed_one_a_line_under_their_names():
    found = sorted({fault for path in ROOT.rglob("*.py") for fault in faults(path)})
    assert not found, "\n".join(found)
