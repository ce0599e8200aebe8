"""Names and conventions of FEDn, its successor Scaleout, and packages written for them."""
