"""Write the data of four clients, from the handwritten digits that come with scikit-learn."""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SHARES = (0.1, 0.2, 0.3, 0.4)  # of the training images

x, y = load_digits(return_X_y=True)
x = torch.tensor(x.reshape(-1, 8, 8), dtype=torch.uint8)
x_train, x_test, y_train, y_test = train_test_split(x, torch.tensor(y), test_size=0.2, random_state=1)
start = 0
for number, share in enumerate(SHARES, start=1):
    end = start + int(share * len(x_train))
    folder = Path("data", "clients", str(number))
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"x_train": x_train[start:end], "y_train": y_train[start:end], "x_test": x_test, "y_test": y_test}
    torch.save({name: part.clone() for name, part in parts.items()}, folder / "digits.pt")
    print(f"{folder}/digits.pt: {end - start} training images")
    start = end
