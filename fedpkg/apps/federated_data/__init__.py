"""Local datasets under the names that message apps give them, divided among clients in the app's own code.

docs/how-to/message-apps-data.md describes it. It needs NumPy alone; Pillow, torch and pandas where they are used.
"""

from fedpkg.apps.federated_data import partitioners
from fedpkg.apps.federated_data.federated_dataset import FederatedDataset
from fedpkg.apps.federated_data.preprocessors import Divider, Merger, concatenate_divisions, divide_dataset
from fedpkg.apps.federated_data.table import Dataset, DatasetDict, concatenate
from fedpkg.errors import FederatedDataError

__all__ = [
    "Dataset",
    "DatasetDict",
    "Divider",
    "FederatedDataError",
    "FederatedDataset",
    "Merger",
    "concatenate",
    "concatenate_divisions",
    "divide_dataset",
    "partitioners",
]
