"""The ``fedpkg`` command."""
