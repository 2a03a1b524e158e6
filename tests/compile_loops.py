"""Compile the loops that most tests use, in two processes, before pytest's workers would each compile all of them."""

import sys

from adjsnn.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["compile", "--parallel", "2", "adaptive", "lif", "clocked", "gated-heun-float64", "gated-euler"]))
