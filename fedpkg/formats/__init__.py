"""Model files and the JSON that travels beside them."""
