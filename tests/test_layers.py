"""Imports inside the library point downward only."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "adjsnn"
LAYERS = [
    {"errors", "untraced"},
    {"checks", "kept"},
    {"shapes"},
    {"trains_check", "numerics", "reparametrized"},
    {"spikes", "signals", "systems"},
    {"collate", "kernels", "lif"},
    {"integrate"},
    {"adjoints"},
    {"solution"},
    {"smooth_arguments", "smooth_system"},
    {"solve_gated", "solve_smooth", "losses"},
    {"solve"},
    {"gradcheck"},
    {"plotting", "training"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("adjsnn."):
            found.add(node.module.split(".")[1])
    return found


def test_imports_point_downward():
    modules = [path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem != "__init__"]
    assert len(modules) > 15
    for path in modules:
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for imported in _imports(path):
            downward = LEVEL[imported] < LEVEL[part] or imported == part
            assert downward, f"{path.relative_to(ROOT)} imports adjsnn.{imported}"


def test_systems_never_see_a_solver():
    for path in (ROOT / "systems").rglob("*.py"):
        assert _imports(path) <= {"checks", "errors", "kept", "numerics", "reparametrized", "shapes", "systems"}, path


def test_losses_see_only_a_solution():
    assert _imports(ROOT / "losses.py") == {"checks", "errors", "lif", "solution", "spikes", "untraced"}
