"""Algorithms in the form of vantage6 1, 2 and 3: ``master(client, data, …)`` and ``RPC_name(data, …)``."""
