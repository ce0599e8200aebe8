"""What Scaleout's client, FEDn's successor, provides for compute packages: the same helpers."""
