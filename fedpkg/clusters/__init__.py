"""Clusters of clients, found from their updates, their labels or their attributes."""
