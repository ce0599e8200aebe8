"""A stand-in for FEDn's adapter for Flower's apps."""
