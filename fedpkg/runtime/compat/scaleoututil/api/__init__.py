"""Scaleout's API, of which a task has only the names."""
