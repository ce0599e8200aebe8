"""FEDn's network, of which packages import only the base of server functions."""
