"""Loops of equations as Python, unless a test asks for compiled ones: each text would take some seconds to compile."""

import pytest

from adjsnn.equations import link


@pytest.fixture(autouse=True)
def interpreted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("compiled") is None:
        monkeypatch.setattr(link, "INTERPRETED", True)
