"""A stand-in for FEDn's adapter for Flower's apps, which explains how to install it."""

raise ImportError(
    "fedpkg has no FlwrClientAppAdapter: this package needs FEDn itself (and flwr). Name them among the dependencies "
    "in its python_env.yaml, or: pip install fedn flwr"
)
