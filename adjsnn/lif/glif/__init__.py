"""Generalised LIF neurons: several receptors, spike-triggered currents, moving thresholds, with or without leak, any wiring."""
