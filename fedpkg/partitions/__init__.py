"""Schemes that divide examples or columns among clients. They need NumPy alone, so tasks have them, too."""
