"""Print the largest difference between two model files in FEDn's format."""

import sys

import numpy as np

with np.load(sys.argv[1]) as one, np.load(sys.argv[2]) as other:
    assert one.files == other.files
    difference = max(float(np.abs(one[name] - other[name]).max()) for name in one.files)
print(f"largest difference: {difference:.1e}")
sys.exit(difference > 1e-6)
