"""Shapes and dtypes in the inner layers' signatures are checked while the tests run; the doors raise the library's own errors."""

import matplotlib as mpl
import torch
from jaxtyping import install_import_hook

mpl.use("Agg")
torch.set_num_threads(1)  # the arrays here are too small to share out, and other work may hold the second core
INNER = ("adjsnn.systems.gates", "adjsnn.systems.membranes", "adjsnn.integrate", "adjsnn.adjoints", "adjsnn.solution")
install_import_hook(INNER, "beartype.beartype").__enter__()
