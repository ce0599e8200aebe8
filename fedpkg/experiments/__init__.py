"""Experiments: folders of configuration files that are composed, and the runs that they describe."""
