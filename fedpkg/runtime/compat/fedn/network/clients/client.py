"""FEDn's first client, up to 0.20, which connects to a combiner."""

from fedn._refused import refused

Client = refused(
    "Client", "it connects to a combiner. A session starts its clients itself: `fedpkg run`, or APIClient.start_session"
)
