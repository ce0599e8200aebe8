"""The global model into a module, and the reply out of it, in the form and of the kind that is asked for."""

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
LOCAL = "local"  # what a client's own tensors are kept under
_POINTS = ("x", "center", "")  # of several sets, the one that is the model


@dataclass(frozen=True)
class Given:
    """What came with a task: weights by the model's own names, whatever the file calls them.

    Args:
        sets: named sets of weights; one plain model is the set ``""``.
        point: the set that the model was filled with.
        names: the model's tensors, in its order; by ``keys`` the file calls them.
        parameter_names: those that are parameters to the strategy.
        local: those that stay with this client: methods that compare with the global model pass them over.
        own: what this client had kept, and was put back.
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
        """The global model as it came."""
        return self.sets[self.point]

    @property
    def shared(self) -> Tensors:
        """The global model without what stays with this client."""
        return {name: tensor for name, tensor in self.weights.items() if name not in self.local}

    @property
    def start(self) -> Tensors:
        """What the module was filled with: the global model, and in it what this client had kept."""
        return {**self.weights, **self.own}

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What the strategy says, such as ``proximal_mu``."""
        return self.task.parameters


def load(path: Path, model: nn.Module, *, local: Iterable[str] = ()) -> Given:
    """Fill a module with the global model, and put back what stays with this client.

    A wrapped module (torch.compile, DataParallel, DistributedDataParallel, Opacus) is seen through here, as everywhere
    in `fedpkg.client`: names are those of what is in the wrapper.

    Args:
        local: names of tensors that stay with this client (see `matching`, `norm_layers`); those that the strategy
            names do besides. Before it has any of its own, they are the global model's.

    Raises:
        ClientError: the file does not fit the module, or what is local is no tensor of it; says which.
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
    """Write the reply: what the strategy asks for of weights, delta, gradient or sets; and its metadata beside it.

    What stays with this client is kept, and in its place the global model's tensors are sent as they came.

    Args:
        given: what `load` returned; None: this is a seed model.
        num_examples: what the reply weighs in a mean.
        sets: those asked for besides the model, by name; a gradient, or one at a plain model, is the set ``""``.
        metadata: anything else of JSON that the strategy or a person may want to see.

    Raises:
        ClientError: what is asked for is missing; says what.
    """
    path, sets = os.fspath(path), sets or {}
    model = None if model is None else bare(model)
    if given is None:
        if model is None or task().entry_point in ("train", "gradient", "prox"):
            raise ClientError(
                "save needs what load returned, to know what is asked for", "save(out_path, model, given)"
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
    """Write metrics, of which ``num_examples`` is what they weigh; tensors of one element are numbers here.

    Raises:
        ClientError: a value is nothing that JSON has; says whose.
    """
    write_json(os.fspath(path), metrics)


def write_json(path: str, content: Mapping[str, Any]) -> None:
    """Write a JSON object. Raises ClientError: a value is nothing that JSON has; says whose."""
    entries = []
    for name, value in content.items():
        try:
            entries.append(json.dumps({name: value}, default=number)[1:-1])
        except (TypeError, ValueError, RecursionError) as error:
            hint = "JSON has numbers, text, lists and mappings; a tensor of one element is a number here"
            raise ClientError(f"{path}: {name!r} cannot be written as JSON: {error}", hint) from error
    text = "{" + ", ".join(entries) + "}"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def number(value: Any) -> Any:
    """A tensor's one element."""
    try:
        return value.item()
    except (AttributeError, RuntimeError, ValueError) as error:
        raise TypeError(f"it has a value of type {type(value).__name__}") from error


# ---- what came


def _split(tensors: dict[str, Tensor], now: Task) -> dict[str, dict[str, Tensor]]:
    """The sets of a file; by hand, they are told by their keys."""
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
    """Tensors under positions, by the names of the module: all of it, or its parameters, which count on their own."""
    for order in (names, parameter_names):
        if len(order) == len(tensors):
            return {name: tensors[str(position)] for position, name in enumerate(order)}
    raise ClientError(
        f"{path}: has {len(tensors)} tensors under positions, the module has {len(names)} ({len(parameter_names)} "
        "parameters)"
    )


def _check(sets: Mapping[str, Tensors], point: str, model: nn.Module, path: str) -> None:
    """All tensors of the sets are the module's, in shape too; of the set that it is filled with, none is missing."""
    own = model.state_dict()
    hint = "the seed model and the module that the entry point makes must be of one shape"
    for name, tensor in own.items():
        if name not in sets[point]:
            if bare_name(name) in sets[point]:
                raise ClientError(
                    f"{path}: what the file calls {bare_name(name)!r} is {name!r} in the module",
                    "load into the module before its layers are wrapped (compiled), and save what is in the wrapper",
                )
            raise ClientError(f"{path}: the file has no tensor {name!r}", hint)
        if tensor.is_meta:
            raise ClientError(
                f"{path}: the module's tensor {name!r} is on the device 'meta', which holds no data",
                "first model.to_empty(device='cpu')",
            )
    for tensors in sets.values():
        for name, tensor in tensors.items():
            if name not in own:
                raise ClientError(f"{path}: the module has no tensor {name!r}", hint)
            if own[name].shape != tensor.shape:
                shapes = tuple(tensor.shape), tuple(own[name].shape)
                raise ClientError("{}: tensor {!r} has shape {}, the module's has {}".format(path, name, *shapes), hint)


# ---- what goes


def _reply(model: nn.Module | None, given: Given, sets: Mapping[str, Tensors]) -> dict[str, Tensor]:
    now = given.task
    asked = now.reply_sets or ((given.point, *sets) if now.by_hand and sets and "" not in sets else ())
    if not asked:
        strange = next((name for name in sets if name), None)
        if strange is not None:
            raise ClientError(f"the set {strange!r} is not asked for: the strategy wants one plain model")
        return _keyed(_plain(model, given, sets), given)
    found: dict[str, Tensor] = {}
    for name in dict.fromkeys(asked):
        tensors = sets.get(name)
        if tensors is None and name == given.point and model is not None:
            tensors = _weights(model, given)
        if tensors is None:
            raise ClientError(
                f"the strategy asks for the set {name!r}",
                f"give it to save: sets={{{name!r}: …}}; what it is, `fedpkg strategy show` says",
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
        raise ClientError("the strategy asks for a gradient", "save(…, sets=gradients(model, given, loss, batches))")
    if model is None:
        raise ClientError(f"save needs the model: the strategy asks for its {given.task.reply}")
    weights = _weights(model, given)
    if given.task.reply == "delta":
        rest = {name: weights[name] for name in given.names if given.task.rest and name not in given.parameter_names}
        return {**{name: weights[name] - given.weights[name] for name in given.parameter_names}, **rest}
    return weights


def _weights(model: nn.Module, given: Given) -> dict[str, Tensor]:
    """The model's tensors in the dtypes of the global model; what stays here is kept, and goes as it came."""
    came, own = given.weights, model.state_dict()
    missing = next((name for name in given.names if name not in own), None)
    if missing is not None:
        raise ClientError(
            f"save: the module has no tensor {missing!r}; its first is {next(iter(own), None)!r}",
            "give save the module that load filled: model in wrapper = Wrapper(model)",
        )
    if given.local:
        keep(LOCAL, {name: own[name] for name in given.local})
    return {
        name: came[name] if name in given.local else own[name].detach().cpu().to(came[name].dtype)
        for name in given.names
    }


def _keyed(tensors: Tensors, given: Given) -> dict[str, Tensor]:
    """By the keys of the file that came; positions count on their own where these are not all tensors."""
    ordered = [name for name in given.names if name in tensors]
    if len(ordered) != len(tensors):
        strange = next(name for name in tensors if name not in given.names)
        raise ClientError(f"{strange!r} is no tensor of the model")
    return {str(i) if given.by_position else name: tensors[name] for i, name in enumerate(ordered)}
