"""The Python environments that compute packages ask for: what they want, and virtual environments that have it."""
