"""Helpers for model files."""
