"""The plots of FEDn's dashboard up to 0.9, which notebooks import."""

from fedn._refused import refused

Plot = refused(
    "Plot",
    "it needs the database of FEDn's server. `fedpkg.Session.open().plot(METRIC)` draws a metric, and "
    "APIClient.get_validations returns the values",
)
