"""What is kept: state in SQLite, model files by their content."""
