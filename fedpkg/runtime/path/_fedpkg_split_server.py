"""The server of split learning with a user's model: ``python -m _fedpkg_split_server FILE LABELS``.

FILE has a class ``ServerModel(input_features)``, a torch module that maps the concatenated embeddings of the clients to
predictions. It may have functions ``loss(output, targets)`` and ``optimizer(parameters)``; without them, predictions
are probabilities, the loss is the binary cross-entropy, and the optimiser is Adam.

Each round seeds PyTorch and creates the module from the state that the last round kept: a repeated round has the same
bits. Runs in the coordinator's process: the standard library, NumPy, PyTorch and fedpkg's client.
"""

from __future__ import annotations

import io
import os
import sys

import _fedpkg_compat  # type: ignore[import-not-found]
from _fedpkg_server_functions import Failed, guarded, read  # type: ignore[import-not-found]

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from typing import Any


class Server:
    """The model and its optimiser in one round. ``kept`` is their state after the last round."""

    def __init__(self, path: str, own: dict[str, Any], features: int, rate: float, kept: bytes | None) -> None:
        import torch

        self.path = path
        self.own = own
        with guarded("ServerModel", path):
            self.model = own["ServerModel"](features)
        if not isinstance(self.model, torch.nn.Module):
            raise Failed("%s: ServerModel is not a torch.nn.Module" % path)
        with guarded("optimizer", path):
            parameters = self.model.parameters()
            make = own.get("optimizer")
            self.optimizer = make(parameters) if make else torch.optim.Adam(parameters, lr=rate)
        if kept is not None:
            found = torch.load(io.BytesIO(kept), weights_only=True)
            with guarded("the state kept of ServerModel and its optimizer does not fit them: load_state_dict", path):
                self.model.load_state_dict(found["model"])
                self.optimizer.load_state_dict(found["optimizer"])

    def train(self, h: list[Any], y: Any) -> dict[str, float]:
        """Compute the gradients of the loss, also for ``h``, and take one step of the optimiser; returns metrics."""
        import torch

        self.model.train()
        output = self._predicted(h)
        loss = self._loss(output, y)
        with guarded("loss.backward", self.path):
            loss.backward()
        if not torch.isfinite(loss):
            raise Failed("%s: the loss is not finite: %s" % (self.path, loss.item()))
        with guarded("optimizer.step", self.path):
            self.optimizer.step()
        return {"loss": loss.item(), **self._accuracy("accuracy", output, y)}

    def test(self, h: list[Any], y: Any) -> dict[str, float]:
        import torch

        self.model.eval()
        with torch.no_grad():
            output = self._predicted(h)
            return {"test_loss": self._loss(output, y).item(), **self._accuracy("test_accuracy", output, y)}

    def kept(self) -> bytes:
        import torch

        file = io.BytesIO()
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, file)
        return file.getvalue()

    def _predicted(self, h: list[Any]) -> Any:
        import torch

        with guarded("ServerModel.forward", self.path):
            output = self.model(torch.cat(h, dim=1))
        if not isinstance(output, torch.Tensor) or not output.dim() or len(output) != len(h[0]):
            shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            about = "%s: ServerModel must return a row for each of %d examples, not %s"
            raise Failed(about % (self.path, len(h[0]), shape))
        return output

    def _loss(self, output: Any, y: Any) -> Any:
        import torch

        with guarded("loss", self.path):
            if "loss" in self.own:
                loss = self.own["loss"](output, y)
            else:
                loss = torch.nn.functional.binary_cross_entropy(output, y.float().reshape(-1, 1))
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise Failed("%s: loss must return one number as a tensor, not %r" % (self.path, loss))
        return loss

    def _accuracy(self, name: str, output: Any, y: Any) -> dict[str, float]:
        """The accuracy of classes, or of the probability of one class; other predictions have none."""
        y = y.reshape(-1)
        if output.dim() == 2 and output.shape[1] > 1 and not y.is_floating_point():
            return {name: (output.argmax(dim=1) == y).float().mean().item()}
        if "loss" in self.own:
            return {}
        return {name: ((output.reshape(-1) > 0.5) == (y > 0.5)).float().mean().item()}


def main(path: str, labels: str) -> None:
    _fedpkg_compat.install()
    _fedpkg_compat.serve_instead()
    from fedpkg.client import coordinator

    own: dict[str, Any] = {}
    kept = None
    for step in coordinator.rounds():
        try:
            own = own or read(path, "ServerModel", {})
            kept = _round(step, path, own, _Labels(labels), step.checkpoint or kept)
        except (Failed, SyntaxError) as error:
            step.fail(str(error))
            raise SystemExit(1) from error


def _round(step: Any, path: str, own: dict[str, Any], labels: _Labels, kept: bytes | None) -> bytes:
    import torch

    from fedpkg.client import Records
    from fedpkg.client.coordinator import Request

    clients = sorted(one.client_id for one in step.clients)
    leaves = [one.requires_grad_() for one in _embeddings(step, clients, inference=False)]
    torch.manual_seed(step.seed)
    server = Server(path, own, sum(one.shape[1] for one in leaves), step.parameters["learning_rate"], kept)
    metrics = server.train(leaves, labels.read("y_train", len(leaves[0])))
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in leaves]
    step.ask(
        *(
            Request(
                "backward",
                clients=[client],
                reply_kind="records",
                payload=Records({"gradient": {"gradient": one.numpy()}}),
                required=1,
            )
            for client, one in zip(clients, gradients)
        )
    )
    if step.parameters["validate"]:
        h = _embeddings(step, clients, inference=True)
        metrics.update(server.test(h, labels.read("y_test", len(h[0]))))
    kept = server.kept()
    step.commit(metrics=metrics, checkpoint=kept)
    return kept


def _embeddings(step: Any, clients: list[str], *, inference: bool) -> list[Any]:
    """The clients' embeddings, in the order of their ids."""
    import torch

    from fedpkg.client import Records

    asked = {"reply_kind": "records", "payload": Records({}, {"inference": inference}), "required": len(clients)}
    [replies] = step.ask("forward", clients=clients, **asked)
    found = {}
    for reply in replies:
        array = reply.records().sets.get("embedding", {}).get("embedding")
        if array is None or array.ndim != 2:
            raise Failed(
                "client %r sent no embedding: records with the set 'embedding', whose tensor 'embedding' has a row "
                "for each example" % reply.client_id
            )
        found[reply.client_id] = torch.as_tensor(array).float().clone()
    if len({len(one) for one in found.values()}) > 1:
        counts = ", ".join("%s %d" % (client, len(one)) for client, one in found.items())
        raise Failed("the clients' embeddings have different numbers of examples: " + counts)
    return list(found.values())


class _Labels:
    """A file of labels, .npz or .pt."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self, name: str, count: int) -> Any:
        import numpy as np
        import torch

        if self.path.endswith(".pt"):
            found: Any = torch.load(self.path, weights_only=True)
        else:
            with np.load(self.path, allow_pickle=False) as arrays:
                found = {one: arrays[one] for one in arrays.files}
        if name not in found:
            raise Failed("strategy.labels: %s has no '%s'" % (self.path, name))
        y = torch.as_tensor(found[name])
        if len(y) != count:
            raise Failed("there are %d labels '%s', but embeddings of %d examples" % (len(y), name, count))
        return y


if __name__ == "__main__":
    main(os.path.basename(sys.argv[1]), os.path.basename(sys.argv[2]))
