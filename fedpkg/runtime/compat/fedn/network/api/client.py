"""FEDn's API client, which a task can import but not use."""

from fedn._refused import NO_SERVER, refused

APIClient = refused("APIClient", NO_SERVER)
