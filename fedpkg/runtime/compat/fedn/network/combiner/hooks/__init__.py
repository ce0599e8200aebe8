"""Server functions: what a package may define for a server to call."""
