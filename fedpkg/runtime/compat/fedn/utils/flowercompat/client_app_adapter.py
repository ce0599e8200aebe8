"""FEDn's adapter for Flower's apps, which says where to get it."""

raise ImportError(
    "fedpkg has no FlwrClientAppAdapter: this package needs FEDn itself (and flwr). Name them among the dependencies "
    "in its python_env.yaml, or: pip install fedn flwr"
)
