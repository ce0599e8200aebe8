"""From a configuration to a running session. The one place that knows every layer."""
