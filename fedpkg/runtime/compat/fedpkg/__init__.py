"""Replaces fedpkg in interpreters without it: only ``fedpkg.client``, ``.records`` and ``.apps`` exist."""
