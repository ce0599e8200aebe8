"""Scaleout's API client, which a task can import but not use."""

from fedn._refused import NO_SERVER, refused

Scaleout = refused("Scaleout", NO_SERVER)
APIClient = refused("APIClient", NO_SERVER)
