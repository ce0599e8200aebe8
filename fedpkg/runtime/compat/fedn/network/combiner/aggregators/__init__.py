"""Aggregators of FEDn's server: a file of one defines the server model of split learning."""
