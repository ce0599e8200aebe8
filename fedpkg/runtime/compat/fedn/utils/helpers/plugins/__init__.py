"""The helpers, one file each, as ``get_helper`` finds them."""
