"""The helpers at the path of FEDn 0.5 to 0.7."""
