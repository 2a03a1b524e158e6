"""Colours of lines in figures, readable in print and to the colour-blind (Okabe and Ito 2008)."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#222222"  # of lines that stand for no colour
