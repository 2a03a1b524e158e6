"""README.md as PyPI shows it: nothing in it leads to a file that is not there. `make wheel` asks the same of a built wheel."""

import re
import tomllib
from pathlib import Path

import adjsnn

ROOT = Path(adjsnn.__file__).parents[1]
README = (ROOT / "README.md").read_text()
LINK = re.compile(r"!?\[[^\]]*\]\(([^)]*)\)")
PROGRAM = re.compile(r"^```python\n.*?^```", re.DOTALL | re.MULTILINE)


def as_on_pypi(replacement=None):
    """By the substitutions of pyproject.toml, one after the other, as hatch-fancy-pypi-readme makes them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    text = README
    for made in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(made["pattern"], made["replacement"] if replacement is None else replacement, text)
    return text


def test_with_an_address_every_link_is_absolute():
    """The replacement that pyproject.toml names."""
    text = as_on_pypi(r"\1[\2](https://address/\3)")
    assert [x.removeprefix("https://address/") for x in LINK.findall(text)] == LINK.findall(README)
    assert "![A network of 30" in text


def test_every_link_of_the_readme_leads_to_a_file():
    targets = LINK.findall(PROGRAM.sub("", README))
    assert len(targets) > 10
    assert [x for x in targets if "://" not in x and not (ROOT / x).is_file()] == []


def test_no_link_of_the_long_description_is_relative():
    text = as_on_pypi()
    assert [x for x in LINK.findall(text) if "://" not in x] == []
    assert PROGRAM.findall(text) == PROGRAM.findall(README)
    for target in LINK.findall(PROGRAM.sub("", README)):
        named = target in text or target.endswith(".png")  # as text
        assert named or "benchmarks/results" in target or target == "docs/models.md"
    assert len(text.splitlines()) == len(README.splitlines())
