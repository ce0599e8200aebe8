"""FEDn's client, whose callbacks train and validate."""
