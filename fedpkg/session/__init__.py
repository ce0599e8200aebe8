"""From a configuration to a running session. Only this folder may import every layer."""
