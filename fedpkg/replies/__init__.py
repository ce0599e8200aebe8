"""Clients' replies, checked against the request, where a task runs and where its reply arrives."""
