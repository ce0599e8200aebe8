"""Makes `vantage6` importable where it is not installed."""

from fedpkg.analytics import names

names.serve()
