"""Scaleout's client that imports a package's startup.py. fedpkg imports it by itself."""

raise ImportError(
    "fedpkg has no ImporterClient: it imports the package's startup.py by itself, from `entry_points: {startup: "
    "startup.py}` in scaleout.yaml, and calls its startup(client)"
)
