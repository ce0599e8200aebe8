"""Aggregators: what makes one model out of the updates of a round."""
