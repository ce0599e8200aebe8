"""The Python environments of compute packages: their requirements, and virtual environments that satisfy them."""
