"""Shared modules of FEDn: see ``log_config``."""
