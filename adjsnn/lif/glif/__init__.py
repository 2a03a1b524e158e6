<<<<<<< HEAD
"""Generalised LIF neurons: several receptors, spike-triggered currents, moving thresholds, no leak, any wiring."""
=======
"""Generalised LIF neurons: several receptors, spike-triggered currents, moving thresholds, with or without leak, any wiring."""
>>>>>>> glifcpu
