"""One registry of pint's for all tests: it reads a file of all units, which takes half a second."""

import pint

REGISTRY = pint.UnitRegistry()
