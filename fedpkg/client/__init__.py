"""For entry points that train with PyTorch: reads models, writes replies, and has the client's part of many methods.

    from fedpkg import client

    def train(in_path, out_path, lr=0.1):
        model = Net()
        given = client.load(in_path, model)
        scaffold = client.Scaffold(model, given)                # 1
        for x, y in batches:
            optimizer.zero_grad()
            loss_of(model(x), y).backward()
            scaffold.correct_gradients()                        # 2
            optimizer.step()
        sets = scaffold.finish(learning_rate=lr)                # 3
        client.save(out_path, model, given, num_examples=len(data), sets=sets)

Lines of methods that the run's strategy does not use have no effect, so one script can have those of several methods.

FedProx, FedAMP  ``fedprox(model, given)`` and its ``correct_gradients()``; or add ``proximal_term`` to the loss.
SCAFFOLD         ``Scaffold``, as above.
FedDyn           ``FedDyn(model, given)``: ``correct_gradients()``, at the end ``finish()``.
Mime, MimeLite   ``Mime(model, given, loss)``: ``correct_gradients(batch)``; plain SGD without momentum.
MOON             ``Moon(model, given)``: add ``loss(z, features)`` to the loss; at the end ``finish()``.
FedLC            ``calibrated_logits(logits, class_counts(labels, classes), tau)``.
FedPer           ``load(…, local=matching(model, "head.*"))``, or use the strategy ``fedper``.
FedBN            ``load(…, local=norm_layers(model))``, or use the strategy ``fedbn``.
LG-FedAvg        ``load(…, local=others(model, "head.*"))``: the body stays with the client, the head is shared.
FedRep           FedPer, and ``with only(model, "head.*")`` some epochs, then ``with only(model, *others(model, …))``.
FedBABU          ``with only(model, *others(model, "head.*"))``, and ``fine_tuned`` before evaluation.
Ditto            ``Ditto(model, given)``: if it is ``active``, train ``ditto.model`` too, corrected; ``finish()``.
pFedMe           ``PFedMe(model, given)``: ``correct_gradients()``, after each batch's steps ``step()``; ``finish()``.
Fine-tuning      ``fine_tuned(model, tune)`` before evaluation; ``personal_model`` returns what Ditto and pFedMe kept.
``gradient``     ``save(out, given=given, sets=gradients(model, given, loss, batches), …)``, also at several points.
``prox``         ``prox(model, given)`` and its ``correct_gradients()`` in the training loop.
Data             ``open_data()``: the arrays of this client, also if it has only a reference to a large dataset.
Clusters         ``save_label_histogram(out, labels, classes)``: the entry point ``label_histogram``.
Statistics       ``load_records``, ``save_records``: named sets of NumPy arrays and JSON; no model, and no PyTorch.

This package depends only on NumPy and PyTorch, which it imports when they are used, and on nothing else of fedpkg. It
can be imported in every task, even if fedpkg is not installed there. State that is kept from round to round (`keep`,
`kept`) consists of tensors, without any pickle.
"""

from fedpkg.client.corrections import Correction, fedprox, prox, proximal_term
from fedpkg.client.data import open_data
from fedpkg.client.errors import ClientError
from fedpkg.client.feddyn import FedDyn
from fedpkg.client.gradients import gradient, gradients
from fedpkg.client.labels import save_label_histogram
from fedpkg.client.local import matching, norm_layers, only, others
from fedpkg.client.logits import calibrated_logits, class_counts
from fedpkg.client.mime import Mime
from fedpkg.client.models import Given, load, save, save_metrics
from fedpkg.client.moon import Moon, moon_loss
from fedpkg.client.personal import Ditto, PFedMe, fine_tuned, keep_model, personal_model
from fedpkg.client.records import Records, load_records, save_records
from fedpkg.client.scaffold import Scaffold
from fedpkg.client.state import keep, kept
from fedpkg.client.task import Task, task

__all__ = [
    "ClientError",
    "Correction",
    "Ditto",
    "FedDyn",
    "Given",
    "Mime",
    "Moon",
    "PFedMe",
    "Records",
    "Scaffold",
    "Task",
    "calibrated_logits",
    "class_counts",
    "fedprox",
    "fine_tuned",
    "gradient",
    "gradients",
    "keep",
    "keep_model",
    "kept",
    "load",
    "load_records",
    "matching",
    "moon_loss",
    "norm_layers",
    "only",
    "open_data",
    "others",
    "personal_model",
    "prox",
    "proximal_term",
    "save",
    "save_label_histogram",
    "save_metrics",
    "save_records",
    "task",
]
