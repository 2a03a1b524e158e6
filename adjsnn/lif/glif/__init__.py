"""Generalised LIF neurons: several receptors, spike-triggered currents, moving thresholds, with and without leak, any wiring."""
