"""Storage: state in SQLite, model files addressed by their content."""
