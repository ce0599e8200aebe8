"""What several parts of FEDn shared: see ``log_config``."""
