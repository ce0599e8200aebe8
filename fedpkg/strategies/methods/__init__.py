"""Strategies that are no composition of an aggregator and a server optimiser: a step of their own."""
