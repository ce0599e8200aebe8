"""Data for the clients: one folder per client, or one dataset split among them."""
