"""Ridge regression on the diabetes data, in NumPy."""

from sklearn.datasets import load_diabetes


def load_data(partition_id, num_partitions):
    x, y = load_diabetes(return_X_y=True)
    rows = slice(partition_id, None, num_partitions + partition_id)  # parts of different sizes
    return 1000 * x[rows] + 3, y[rows]


def step(w, x, y, lr):
    return w - lr * x.T @ (x @ w - y) / len(y)
