"""FEDn's adapter for Flower's apps, of which there is only the name here."""
