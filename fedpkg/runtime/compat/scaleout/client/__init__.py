"""Scaleout's client."""
