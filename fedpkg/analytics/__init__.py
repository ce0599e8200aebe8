"""Federated algorithms on data frames: central functions ask organizations, whose partial functions see their data.

It can be imported in every task, even if fedpkg is not installed there, and imports neither NumPy nor pandas: the
modules that read frames import pandas when they do.
"""
