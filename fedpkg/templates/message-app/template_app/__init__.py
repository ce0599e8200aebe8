"""A federation in which clients learn handwritten digits."""
