"""Aggregators: they make one model out of the updates of a round."""
