"""Pages about a home in the browser: served on this machine, read through the read API alone."""
