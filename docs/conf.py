"""The documentation site: `make docs` builds it, from pages all over the repository, which link to one another as they lie."""

import re
from typing import Any

import adjsnn

project = "adjsnn"
author = "The adjsnn developers"
version = release = adjsnn.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "benchmarks/results/*.md",
    "crossval/README.md",
    "experiments/RESULTS.md",
    "findings/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = ["docs/_build", "docs/jupyter_execute"]

html_theme = "furo"
html_title = f"adjsnn {version}"
html_static_path: list[str] = []

nb_execution_mode = "force"  # a page that is built is a page that runs
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and types stand in the text
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False

suppress_warnings = ["misc.highlighting_failure"]


def _plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `code`: * and | in their equations are no markup, and indented lines are programs."""
    inside = False
    for k, line in enumerate(lines):
        indented = line.startswith("    ") and not line.lstrip().startswith((":", "*", "-"))
        if indented and not inside and k and not lines[k - 1].strip() and not lines[k - 2].rstrip().endswith("::"):
            lines[k - 1] = "\n::\n"
        inside = indented or (inside and not line.strip())
        if not inside:
            parts = re.split(r"(`+[^`]+`+|^\s*:[^:`]+:|^\s*\.\. .*|\*\*\w+\*\*|^\s*\* )", line)
            parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
            lines[k] = "".join(parts)
    lines[:] = "\n".join(lines).split("\n")


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _plain, priority=900)  # after napoleon
