"""FEDn's dashboard, of which only the names are here."""
