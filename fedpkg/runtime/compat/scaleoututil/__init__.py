"""What Scaleout's client, FEDn's successor, gives to compute packages: the same helpers."""
