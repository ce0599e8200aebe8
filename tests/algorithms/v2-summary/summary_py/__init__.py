"""Minimum, maximum, mean, standard deviation and counts of columns, in the form of version 2."""

from .central import master
from .partial import RPC_summary

__all__ = ["RPC_summary", "master"]
