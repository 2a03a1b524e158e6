"""What every body of code that steps gated networks holds to."""

MOST_COUNTED = 127  # crossings of one step: what an int8 holds
MOST_CROSSINGS = 100  # thresholds one neuron may run through in one step before it counts as runaway
KEPT = 16  # steps from one stored voltage of a thin trajectory to the next
