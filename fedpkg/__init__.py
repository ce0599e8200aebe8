"""fedpkg: federated learning whose client code is a compute package.

Importing this module loads neither torch nor numpy.
"""

__version__ = "0.1.0"
