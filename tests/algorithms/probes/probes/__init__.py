# ruff: noqa: F401
"""Functions of version 4 that show how an algorithm is run, and what it can reach."""

from probes.central import deep, dies, differs, kinds, large, many, mean, order, polls, spy, stubborn, twice, unknown
from probes.partial import append, big, both, fails_at, look, moments, never_ends, process
