"""Running entry points: tasks, and the executors that run them."""
