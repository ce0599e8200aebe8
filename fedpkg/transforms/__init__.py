"""Transforms of a model or update on its way (clipping, noise, compression), which the receiver undoes."""
