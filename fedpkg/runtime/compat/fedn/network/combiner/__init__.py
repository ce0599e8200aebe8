"""FEDn's combiner, of which packages import only the base of server functions."""
