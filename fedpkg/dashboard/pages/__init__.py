"""One module for each page: it asks the read API, and returns a `Page` for the template of the same name."""
