"""Data for the clients: a folder each, or one dataset split among them."""
