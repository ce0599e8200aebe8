"""What FEDn and its successor Scaleout call things, and the habits of packages written for them."""
