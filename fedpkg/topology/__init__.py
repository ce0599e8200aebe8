"""Trees of combiners: their section of a run.yaml, checked, and the trees that it describes."""
