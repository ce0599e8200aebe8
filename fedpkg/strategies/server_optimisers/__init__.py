"""Server optimisers, and the schedules of their learning rates."""
