"""Generalised LIF neurons: several receptors, spike-triggered currents, moving thresholds, no leak, any wiring."""
