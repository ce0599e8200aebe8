"""Utilities of FEDn that packages import: see ``helpers``."""
