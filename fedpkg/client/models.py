"""Loads the global model into a module, and saves the reply in the form and of the kind that the strategy expects."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

from fedpkg.client import arrays
from fedpkg.client.errors import ClientError
from fedpkg.client.local import names_of_strategy
from fedpkg.client.state import keep, kept
from fedpkg.client.task import Task, task
from fedpkg.client.wrapped import bare, bare_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    Tensors = Mapping[str, Tensor]

Path = Union[str, "os.PathLike[str]"]
LOCAL = "local"  # the name under which a client's own tensors are kept
_POINTS = ("x", "center", "")  # names of the set that is the model, if there are several


@dataclass(frozen=True)
class Given:
    """The input of a task: weights by the model's own names, whatever their keys in the file.

    Args:
        sets: Named sets of weights; one plain model is the set ``""``.
        point: The set that was loaded into the model.
        names: Names of the model's tensors, in its order.
        parameter_names: Names of the tensors that are parameters to the strategy.
        by_position: Whether the keys in the file are positions.
        local: Names of tensors that stay with this client: methods that compare with the global model ignore them.
        own: The tensors that this client had kept, and that were restored.
    """

    task: Task
    sets: Mapping[str, Tensors]
    point: str
    names: tuple[str, ...]
    parameter_names: tuple[str, ...]
    by_position: bool
    local: tuple[str, ...] = ()
    own: Tensors = field(default_factory=dict)

    @property
    def weights(self) -> Tensors:
        """The global model."""
        return self.sets[self.point]

    @property
    def shared(self) -> Tensors:
        """The global model without the tensors that stay with this client."""
        return {name: tensor for name, tensor in self.weights.items() if name not in self.local}

    @property
    def start(self) -> Tensors:
        """The weights that were loaded: the global model's, and this client's own where it had kept any."""
        return {**self.weights, **self.own}

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters of the strategy, such as ``proximal_mu``."""
        return self.task.parameters


def load(path: Path, model: nn.Module, *, local: Iterable[str] = ()) -> Given:
    """Load the global model into a module, and restore the tensors that stay with this client.

    Names are those of the module inside its wrappers (torch.compile, DataParallel, DistributedDataParallel, Opacus), as
    everywhere in `fedpkg.client`.

    Args:
        local: Names of tensors that stay with this client (see `matching`, `norm_layers`), in addition to those of the
            strategy. Until it has kept its own, they are the global model's.

    Raises:
        ClientError: If the file does not fit the module, or a name in ``local`` is not one of its tensors.
    """
    model = bare(model)
    now, path = task(), os.fspath(path)
    names = tuple(model.state_dict())
    found = _split(arrays.read(path), now)
    point = next((name for name in _POINTS if name in found), next(iter(found)))
    positions = {str(i) for i in range(len(found[point]))}
    by_position = found[point].keys() == positions and not positions <= set(names)  # nn.Sequential has '0.weight'
    parameter_names = _parameter_names(model, names, now, by_position)
    if by_position:
        found = {name: _by_names(tensors, names, parameter_names, path) for name, tensors in found.items()}
    _check(found, point, model, path)
    sets = {name: {key: tensors[key] for key in names if key in tensors} for name, tensors in found.items()}
    names_kept = tuple(dict.fromkeys((*local, *names_of_strategy(model, now.parameters))))
    strange = next((name for name in names_kept if name not in names), None)
    if strange is not None:
        raise ClientError(f"local: the model has no tensor {strange!r}", "patterns: local=matching(model, 'head.*')")
    own = {name: tensor for name, tensor in (kept(LOCAL) or {}).items() if name in sets[point]}
    given = Given(now, sets, point, names, parameter_names, by_position, names_kept, own)
    model.load_state_dict(dict(given.start))
    return given


def save(
    path: Path,
    model: nn.Module | None = None,
    given: Given | None = None,
    *,
    num_examples: float | None = None,
    sets: Mapping[str, Tensors] | None = None,
    **metadata: Any,
) -> None:
    """Write the reply that the strategy expects (weights, delta, gradient or sets), and its metadata file.

    Tensors that stay with this client are kept; the reply has the global model's in their place.

    Args:
        given: The return value of `load`; None: the model is a seed model.
        num_examples: The weight of the reply in a mean.
        sets: Sets that are expected in addition to the model, by name; a gradient at a plain model is the set ``""``.
        metadata: Any other JSON, for the strategy or the user.

    Raises:
        ClientError: If something that the strategy expects is missing.
    """
    path, sets = os.fspath(path), sets or {}
    model = None if model is None else bare(model)
    if given is None:
        if model is None or task().entry_point in ("train", "gradient", "prox"):
            raise ClientError(
                "save needs the return value of load, to know what the strategy expects", "save(out_path, model, given)"
            )
        arrays.write(path, model.state_dict())
        buffers = [name for name, _ in model.named_buffers() if name in model.state_dict()]
        metadata = {**({"buffers": buffers} if buffers else {}), **metadata}
    else:
        arrays.write(path, _reply(model, given, sets))
    if num_examples is not None:
        metadata = {"num_examples": num_examples, **metadata}
    write_json(path + "-metadata", metadata)


def save_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write metrics; ``num_examples`` is their weight, and tensors with one element become numbers.

    Raises:
        ClientError: If a value cannot be written as JSON.
    """
    write_json(os.fspath(path), metrics)


def write_json(path: str, content: Mapping[str, Any]) -> None:
    """Write a JSON object. Raises ClientError if a value cannot be written as JSON."""
    entries = []
    for name, value in content.items():
        try:
            entries.append(json.dumps({name: value}, default=number)[1:-1])
        except (TypeError, ValueError, RecursionError) as error:
            hint = "use numbers, text, lists and mappings; a tensor with one element counts as a number"
            raise ClientError(f"{path}: {name!r} cannot be written as JSON: {error}", hint) from error
    text = "{" + ", ".join(entries) + "}"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def number(value: Any) -> Any:
    """The value of a tensor with one element."""
    try:
        return value.item()
    except (AttributeError, RuntimeError, ValueError) as error:
        raise TypeError(f"it has a value of type {type(value).__name__}") from error


# ---- the input


def _split(tensors: dict[str, Tensor], now: Task) -> dict[str, dict[str, Tensor]]:
    """The sets of a file; in a run by hand they are recognised by their keys."""
    if not now.input_sets and not (now.by_hand and tensors and all("/" in key for key in tensors)):
        return {"": tensors}
    sets: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, tensor_name = key.partition("/")
        sets.setdefault(name, {})[tensor_name] = tensor
    return sets


def _parameter_names(model: nn.Module, names: tuple[str, ...], now: Task, by_position: bool) -> tuple[str, ...]:
    if now.parameter_names is None:
        own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        return tuple(name for name in names if name in own)
    if by_position:
        return tuple(names[int(position)] for position in now.parameter_names if int(position) < len(names))
    return tuple(name for name in names if name in now.parameter_names)


def _by_names(
    tensors: dict[str, Tensor], names: tuple[str, ...], parameter_names: tuple[str, ...], path: str
) -> dict[str, Tensor]:
    """Tensors under positions, by the names of all the module's tensors, or of its parameters alone."""
    for order in (names, parameter_names):
        if len(order) == len(tensors):
            return {name: tensors[str(position)] for position, name in enumerate(order)}
    raise ClientError(
        f"{path}: has {len(tensors)} tensors under positions, but the module has {len(names)} tensors "
        f"({len(parameter_names)} parameters)"
    )


def _check(sets: Mapping[str, Tensors], point: str, model: nn.Module, path: str) -> None:
    """Check the names and shapes of all sets against the module, and that the set to be loaded is complete."""
    own = model.state_dict()
    hint = "the seed model and the entry point's module must have the same architecture"
    for name, tensor in own.items():
        if name not in sets[point]:
            if bare_name(name) in sets[point]:
                raise ClientError(
                    f"{path}: the tensor {bare_name(name)!r} in the file is {name!r} in the module",
                    "load into the module before its layers are wrapped (compiled), and save the unwrapped module",
                )
            raise ClientError(f"{path}: the file has no tensor {name!r}", hint)
        if tensor.is_meta:
            raise ClientError(
                f"{path}: the module's tensor {name!r} is on the device 'meta', which holds no data",
                "first call model.to_empty(device='cpu')",
            )
    for tensors in sets.values():
        for name, tensor in tensors.items():
            if name not in own:
                raise ClientError(f"{path}: the module has no tensor {name!r}", hint)
            if own[name].shape != tensor.shape:
                shapes = tuple(tensor.shape), tuple(own[name].shape)
                raise ClientError("{}: tensor {!r} has shape {}, the module's has {}".format(path, name, *shapes), hint)


# ---- the reply


def _reply(model: nn.Module | None, given: Given, sets: Mapping[str, Tensors]) -> dict[str, Tensor]:
    now = given.task
    asked = now.reply_sets or ((given.point, *sets) if now.by_hand and sets and "" not in sets else ())
    if not asked:
        strange = next((name for name in sets if name), None)
        if strange is not None:
            raise ClientError(f"the set {strange!r} was not requested: the strategy expects one plain model")
        return _keyed(_plain(model, given, sets), given)
    found: dict[str, Tensor] = {}
    for name in dict.fromkeys(asked):
        tensors = sets.get(name)
        if tensors is None and name == given.point and model is not None:
            tensors = _weights(model, given)
        if tensors is None:
            raise ClientError(
                f"the strategy expects the set {name!r}",
                f"pass it to save: sets={{{name!r}: …}}; `fedpkg strategy show` describes it",
            )
        found.update({f"{name}/{key}" if name else key: t for key, t in _keyed(tensors, given).items()})
    return found


def _plain(model: nn.Module | None, given: Given, sets: Mapping[str, Tensors]) -> Tensors:
    if "" in sets:
        like = given.weights
        return {
            name: like[name].new_zeros(like[name].shape) if name in given.local else sets[""][name].to(like[name].dtype)
            for name in given.parameter_names
        }
    if given.task.reply == "gradient":
        raise ClientError("the strategy expects a gradient", "save(…, sets=gradients(model, given, loss, batches))")
    if model is None:
        raise ClientError(f"save needs the model: the strategy expects its {given.task.reply}")
    weights = _weights(model, given)
    if given.task.reply == "delta":
        rest = {name: weights[name] for name in given.names if given.task.rest and name not in given.parameter_names}
        return {**{name: weights[name] - given.weights[name] for name in given.parameter_names}, **rest}
    return weights


def _weights(model: nn.Module, given: Given) -> dict[str, Tensor]:
    """The model's tensors in the dtypes of the global model; local ones are kept, and the global model's are sent."""
    came, own = given.weights, model.state_dict()
    missing = next((name for name in given.names if name not in own), None)
    if missing is not None:
        raise ClientError(
            f"save: the module has no tensor {missing!r}; its first is {next(iter(own), None)!r}",
            "pass the module that was given to load: model in wrapper = Wrapper(model)",
        )
    if given.local:
        keep(LOCAL, {name: own[name] for name in given.local})
    return {
        name: came[name] if name in given.local else own[name].detach().cpu().to(came[name].dtype)
        for name in given.names
    }


def _keyed(tensors: Tensors, given: Given) -> dict[str, Tensor]:
    """Tensors by the keys of the input file; if they are only some of the model's, positions are counted among them."""
    ordered = [name for name in given.names if name in tensors]
    if len(ordered) != len(tensors):
        strange = next(name for name in tensors if name not in given.names)
        raise ClientError(f"{strange!r} is not a tensor of the model")
    return {str(i) if given.by_position else name: tensors[name] for i, name in enumerate(ordered)}
