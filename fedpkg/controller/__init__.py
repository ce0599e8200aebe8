"""Rounds: dispatch, fold, commit, resume."""
