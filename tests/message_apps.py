"""A message app for tests, whose parts a test can replace."""

from __future__ import annotations

from pathlib import Path

PYPROJECT = """\
[project]
name = "my-app"
version = "1.2.0"
dependencies = ["flwr[simulation]>=1.28", "flwr-datasets[vision]>=0.5", "numpy"]

[tool.flwr.app]
publisher = "me"
fab-exclude = ["data/**"]

[tool.flwr.app.components]
serverapp = "quick.server_app:app"
clientapp = "quick.client_app:app"

[tool.flwr.app.config]
num-server-rounds = 3
learning-rate = 0.1
use-gpu = false
name = "a"
train.lr = 0.5
[tool.flwr.app.config.deep.er]
value = -1

[tool.flwr.federations]
default = "local"
[tool.flwr.federations.local]
options.num-supernodes = 4
[tool.flwr.federations.big]
options.num-supernodes = 100
"""
CLIENT = """\
import torch
from flwr.clientapp import ClientApp
from quick.task import Net

app = ClientApp()
"""


def make_app(folder: Path, pyproject: str = PYPROJECT, client: str = CLIENT) -> Path:
    (folder / "quick").mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(pyproject)
    (folder / "quick/__init__.py").write_text("")
    (folder / "quick/task.py").write_text("import xml.dom\n\nclass Net: ...\n")
    (folder / "quick/client_app.py").write_text(client)
    (folder / "quick/server_app.py").write_text("from flwr.serverapp import ServerApp\napp = ServerApp()\n")
    return folder
