"""Fuzzing runs thousands of solves: shape checks, which quadruple their time, are left out."""

import pytest
from jaxtyping import config


@pytest.fixture(autouse=True, scope="module")
def _unchecked_shapes():
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
