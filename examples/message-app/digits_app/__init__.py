"""A message app whose nodes learn handwritten digits."""
