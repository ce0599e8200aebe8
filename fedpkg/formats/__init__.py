"""Model files, and their JSON metadata files."""
