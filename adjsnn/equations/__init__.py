"""Hybrid systems written as equations, differentiated and compiled."""
