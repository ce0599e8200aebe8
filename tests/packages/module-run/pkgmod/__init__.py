"""A package whose entry points run as a module."""
