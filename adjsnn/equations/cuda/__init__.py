"""The loops of a system of equations on a GPU, a thread for each sample."""
