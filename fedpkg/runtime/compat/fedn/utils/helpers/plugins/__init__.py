"""The helpers that ``get_helper`` finds, one file each."""
