"""An application that is run as a module."""
