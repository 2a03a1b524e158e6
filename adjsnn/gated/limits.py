"""What every body of code that steps gated networks holds to about the crossings of one step."""

MOST_COUNTED = 127  # what an int8 holds
MOST_CROSSINGS = 100  # thresholds one neuron may run through in one step before it counts as runaway
