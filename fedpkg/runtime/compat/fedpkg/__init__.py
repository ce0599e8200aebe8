"""Replaces fedpkg in interpreters without it: only ``fedpkg.client`` exists."""
