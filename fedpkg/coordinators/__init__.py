"""Coordinators: processes of a person's own code outside the slots, which ask clients over a socket."""
