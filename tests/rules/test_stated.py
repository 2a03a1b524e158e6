"""What rules say of themselves stands in the docs as it is printed, and each has a page."""

from pathlib import Path

import adjsnn.rules
from adjsnn.rules.stated import KNOWN, table

DOCS = Path(__file__).parents[2] / "docs"


def test_the_docs_have_the_table():
    assert table(adjsnn.rules.CATALOGUE) in (DOCS / "rules.md").read_text(), "python -m adjsnn.rules"


def test_every_rule_has_a_page_and_a_row():
    pages = [path.read_text() for path in (DOCS / "rules").glob("*.md")]
    rules = {x for x in adjsnn.rules.__all__ if hasattr(getattr(adjsnn.rules, x), "stated")}
    assert rules == adjsnn.rules.CATALOGUE.keys() - {"EventAdjoint"}
    for name in rules:
        (page,) = [
            text for text in pages if text.startswith("# ") and name in text.splitlines()[0].removeprefix("# ").split(", ")
        ]
        assert all(f"**{part}" in page for part in ("Equation", "What ", "When to use"))
    assert all(set(one.knows) <= set(KNOWN) for one in adjsnn.rules.CATALOGUE.values())
