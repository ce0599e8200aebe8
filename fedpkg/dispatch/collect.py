"""What a task left behind: taken out of its reach, then checked against what was asked."""

from __future__ import annotations

import functools
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.dispatch.base import Failure, Task, leads_elsewhere, working_folder
from fedpkg.dispatch.staging import SEED_SUFFIXES, model_words, named_seeds
from fedpkg.errors import ModelFileError, nearest
from fedpkg.files import remove_tree, same_bytes
from fedpkg.formats.metadata import metadata_path, num_examples, read_metadata, read_metrics
from fedpkg.types import Json, ReplyKind, Use

if TYPE_CHECKING:
    import torch

    from fedpkg.dispatch.keepers import Call, Outcome
    from fedpkg.weights.weights import Weights

DEFAULT_REPLY_BYTES = 16 << 20
JSON_BYTES = 16 << 20
# A weighted sum of 2**24 terms of this share of the largest number of its dtype is finite: no client makes it infinite.
TERM = 2.0**-24
LARGEST_FORMER_TERM = 3.4e38 * TERM
# Parameters of which steps are made: their squares, and sums of 2**27 of these, are finite in float32. In wider dtypes,
# too: a method may make a step as long in all tensors as it is in one.
LARGEST_STEPPED = 2.0**50
# A server's step may leave the range of the replies: momentum 0.9 by a factor of 14 (over all rounds together).
ROOM_FOR_STEPS = 32


class Refused(Exception):
    """The reply is not what was asked; carries the failure to record."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)


@dataclass(frozen=True)
class Reply:
    """A checked reply, in a place that no client can write to by mistake."""

    path: Path
    size_bytes: int
    metadata: Mapping[str, Json]
    sent_bytes: int | None = None
    converted: str | None = None  # which dtypes of it are not the global model's
    weights: Weights | None = None
    sets: Mapping[str, Weights] = field(default_factory=dict)
    num_examples: float | None = None
    metrics: Json = None


def collect(task: Task, out: Path) -> Reply:
    """Take and check what a task wrote. Call it only when all the task's processes are gone.

    Raises:
        Refused: the reply is not as asked.
    """
    if task.reply_kind is ReplyKind.NOTHING:
        return Reply(out, 0, {})
    asked = out
    if task.reply_kind is ReplyKind.SEED:
        out = next(_seeds(task, out), None) or _no_seed(task, out)
    limit = JSON_BYTES if task.reply_kind is ReplyKind.METRICS else reply_limit(task)
    kept = task.folder.with_name(task.folder.name + ".reply") / out.name
    try:
        kept.parent.mkdir()
    except FileExistsError:  # the place is known before: a task may have put something there
        remove_tree(kept.parent)
        kept.parent.mkdir()
    size_bytes = take(out, kept, max_bytes=limit)
    metadata_file = next(filter(os.path.lexists, (metadata_path(out), metadata_path(asked))), metadata_path(out))
    if metadata_file.exists() or metadata_file.is_symlink():
        take(metadata_file, metadata_path(kept), max_bytes=JSON_BYTES)
    return read_reply(task, kept, size_bytes=size_bytes, limit=limit)


def _seeds(task: Task, out: Path) -> Iterator[Path]:
    """Where `build` may have written: as asked, as its command says, or as FEDn's packages do.

    Files that a command names must be in the working copy of the package, or beside it.
    """
    beside = out.with_name(f"{out.name}.npz")  # np.savez adds the suffix, where a .safetensors file was asked for
    yield from filter(os.path.lexists, (out, beside))
    if leads_elsewhere(task):
        return
    given, own = task.package.folder, working_folder(task)
    for word in named_seeds(task):
        path = own / word
        if os.path.lexists(path) and path.parent.resolve().is_relative_to(own.parent.resolve()):
            yield path
    for folder, before in ((own.parent, given.parent if given != task.package.root else None), (own, given)):
        for suffix in SEED_SUFFIXES:
            path = folder / f"seed{suffix}"
            earlier = None if before is None else before / path.name
            if os.path.lexists(path) and not (earlier and earlier.is_file() and same_bytes(path, earlier)):
                yield path


def _no_seed(task: Task, out: Path) -> Path:
    """The file that is missed, for the message; what the command names is told with where it would be taken from."""
    named = [word for word in model_words(task) if word in named_seeds(task) or os.path.isabs(word)]
    if named:
        where = "in the package's folder or beside it, where it is looked for"
        raise Refused("no_file", f"its command names '{named[0]}', but there is no such file {where}")
    return out


def read_reply(task: Task, kept: Path, *, size_bytes: int, limit: int | None = None) -> Reply:
    """Read and check a reply that was taken already (also again, when a session resumes).

    Raises:
        Refused: the reply is not as asked.
    """
    metadata = _metadata(kept)
    if task.reply_kind is ReplyKind.METRICS:
        try:
            metrics = read_metrics(kept)
        except ModelFileError as error:
            raise Refused("bad_json", error.message) from error
        if task.weighted:
            _check_weight(metrics, metadata)
        return Reply(kept, size_bytes, metadata, metrics=metrics)
    limit = limit or reply_limit(task)
    if task.reply_kind is ReplyKind.UPDATE:
        sets, converted = _opened(task, kept, max_bytes=limit)
        examples = _checked(task, sets, metadata, converted)
        return Reply(kept, size_bytes, metadata, converted=converted, weights=sets[""], num_examples=examples)
    if task.reply_kind is ReplyKind.SETS:
        sets, converted = _opened(task, kept, max_bytes=limit)
        examples = _checked(task, sets, metadata, converted)
        return Reply(kept, size_bytes, metadata, converted=converted, sets=sets, num_examples=examples)
    return Reply(kept, size_bytes, metadata)


def open_reply(task: Task, kept: Path, *, max_bytes: int | None = None) -> dict[str, Weights]:
    """Map an update (the set ``""``), or the sets that the task names in its order. Numbers are not looked at.

    Each has the order, the dtypes and the buffers of what it must fit.

    Raises:
        Refused: the file is damaged, or does not fit.
    """
    return _opened(task, kept, max_bytes=max_bytes)[0]


def _opened(task: Task, kept: Path, *, max_bytes: int | None) -> tuple[dict[str, Weights], str | None]:
    """The sets as `open_reply` gives them, and in words which of their dtypes were converted."""
    from fedpkg.formats.model_file import read_model, read_sets

    templates = _set_templates(task)
    try:
        is_update = task.reply_kind is ReplyKind.UPDATE
        found = {"": read_model(kept, max_bytes=max_bytes)} if is_update else read_sets(kept, max_bytes=max_bytes)
    except ModelFileError as error:
        raise Refused("bad_file", error.message) from error
    for name in templates:
        if name not in found:
            raise Refused("mismatch", f"missing set '{name}'{nearest(name, found)}")
    if extra := next((name for name in found if name not in templates), None):
        raise Refused("mismatch", f"extra set '{extra}'")
    sent = {name: _renamed(found[name], template) for name, template in templates.items()}
    if task.content == "delta" and task.template is not None and is_update:
        sent[""] = _with_rest(sent[""], task.template)
    fitted = {name: _fitted(sent[name], template, name) for name, template in templates.items()}
    conversions = (_conversion(sent[name], fitted[name]) for name in templates)
    return fitted, next(filter(None, conversions), None)


def _conversion(sent: Weights, fitted: Weights) -> str | None:
    """The first tensor of a reply whose dtype was converted, in words for a message."""
    from fedpkg.weights.weights import dtype_name

    for name, tensor in sent.items():
        if tensor.dtype != fitted[name].dtype:
            return f"tensor '{name}' is {dtype_name(tensor)}, in the global model it is {dtype_name(fitted[name])}"
    return None


def reply_limit(task: Task) -> int | None:
    """Bytes that a model file from a client may have: as configured, else twice what is asked for and some room.

    What is asked for in a half-precision dtype may come in float64.
    """
    if task.reply_bytes is not None:
        return task.reply_bytes
    asked = list(_set_templates(task).values())
    factor = 4 if task.suffix == ".txt" else 2  # as text, 8 bytes take 25
    sizes = [_most_bytes(template, factor) for template in asked if template is not None]
    return sum(sizes) + DEFAULT_REPLY_BYTES if len(sizes) == len(asked) else None


def _most_bytes(template: Weights, factor: int) -> int:
    return sum(
        tensor.numel() * max(factor * tensor.element_size(), 8 if tensor.is_floating_point() else 0)
        for tensor in template.values()
    )


def take(source: Path, target: Path, *, max_bytes: int | None) -> int:
    """Move a file out of a task's reach; its size in bytes. Only a regular file with one name will do."""
    try:
        facts = source.lstat()
    except FileNotFoundError:
        raise Refused("no_file", f"it wrote no '{source.name}'") from None
    if stat.S_ISLNK(facts.st_mode):
        raise Refused("not_a_file", f"'{source.name}' is a symbolic link; a reply must be a file of its own")
    if not stat.S_ISREG(facts.st_mode):
        raise Refused("not_a_file", f"'{source.name}' is not a regular file")
    if facts.st_nlink != 1:
        raise Refused("not_a_file", f"'{source.name}' has {facts.st_nlink} names (hard links); a reply must have one")
    if max_bytes is not None and facts.st_size > max_bytes:
        source.unlink()  # or a client could fill the disk, round after round
        message = f"'{source.name}' had {facts.st_size} bytes; at most {max_bytes} are taken (limits.reply_bytes)"
        raise Refused("too_big", message)
    source.rename(target)
    os.chmod(target, 0o444)
    return facts.st_size


def keep_logs(call: Call, outcome: Outcome) -> None:
    """Logs are for people: where a task put something else in the place of one, is again what it printed last."""
    for path, tail in ((call.stdout, outcome.stdout_tail), (call.stderr, outcome.stderr_tail)):
        with suppress(OSError):  # nobody would blame the task for it
            with suppress(FileNotFoundError):
                facts = path.lstat()
                if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
                    continue
                remove_tree(path)  # a link to a file that is not its own, a pipe at which a reader would wait
            path.write_text(tail)


def _metadata(kept: Path) -> dict[str, Json]:
    if not metadata_path(kept).exists():
        return {}
    try:
        return read_metadata(kept, max_bytes=JSON_BYTES)
    except ModelFileError as error:
        raise Refused("bad_metadata", error.message) from error


def _set_templates(task: Task) -> dict[str, Weights | None]:
    """What each set of the reply must fit; an update is the set ``""``."""
    if task.reply_kind is not ReplyKind.SETS:
        return {"": task.template}
    parameters = None
    if task.template is not None:
        taking_part = frozenset(task.template.parameters)
        parameters = task.template.filter(taking_part.__contains__)
    return {name: parameters if template is None else template for name, template in task.sets.items()}


def _fitted(weights: Weights, template: Weights | None, name: str) -> Weights:
    """The weights in the order of what they must fit, and with its buffers."""
    if template is None:
        return weights
    weights = weights.in_dtypes_of(template)
    if reason := weights.mismatch(template):
        raise Refused("mismatch", _of_set(name) + reason)
    return weights.reordered_like(template)


def _with_rest(delta: Weights, template: Weights) -> Weights:
    """A delta with the tensors that are no parameters: of a client that sends none, those that it was sent."""
    from fedpkg.weights.weights import Weights

    parameters = template.filter(frozenset(template.parameters).__contains__)
    delta = _renamed(delta, parameters)
    if not delta or len(parameters) == len(template) or delta.keys() != parameters.keys():
        return delta
    return Weights({name: delta.get(name, tensor) for name, tensor in template.items()})


def _renamed(weights: Weights, template: Weights | None) -> Weights:
    """Where a model has positions for names, a set of some of its tensors counts 0, 1, 2 … on its own."""
    from fedpkg.formats.base import keys_of
    from fedpkg.weights.weights import Weights

    if template is None:
        return weights
    if len(weights) == len(template) and keys_of(weights) == "positions" and all(map(str.isdecimal, template)):
        return Weights(dict(zip(template, weights.values(), strict=True)))
    return weights


def _checked(task: Task, sets: Mapping[str, Weights], metadata: dict[str, Json], converted: str | None) -> float:
    """The weight of a reply whose numbers are finite, and make nothing infinite that a method makes of them.

    Unchanged buffers may hold what is not finite. A number that is refused here is that client's failure. Later it
    would be nobody's, and stop the session.
    """
    templates = _set_templates(task)
    magnitudes = []
    for name, weights in sets.items():
        for key, largest in weights.magnitudes():
            if math.isfinite(largest):
                magnitudes.append((name, key, largest))
            elif not weights.is_unchanged_buffer(key, templates[name]):
                reason = f"{_of_set(name)}tensor '{key}' has NaN or infinite values"
                raise Refused("not_finite", reason + (f" after a conversion ({converted})" if converted else ""))
    examples = _examples(task, metadata)
    for name, key, largest in magnitudes:
        tensor, is_parameter = sets[name][key], key not in sets[name].buffers
        limits = value_limits(tensor.dtype, task.use, is_parameter=is_parameter)
        if largest * examples > limits[0] or largest > limits[1]:
            where = f"{_of_set(name)}tensor '{key}' has values up to {largest:.3g}"
            if largest <= limits[1]:
                raise Refused("too_large", f"{where}, too large to average over {examples:g} examples")
            raise Refused("too_large", f"{where}; this strategy takes parameters up to {limits[1]:.3g}")
    return examples


@functools.cache
def value_limits(dtype: torch.dtype, use: Use, *, is_parameter: bool = True) -> tuple[float, float]:
    """How large a number of a reply may be: times its weight, and by itself."""
    import torch

    if use == "former":
        return LARGEST_FORMER_TERM if dtype.itemsize < 8 else math.inf, math.inf
    real = dtype.to_real() if dtype.is_complex else dtype
    arithmetic = torch.promote_types(real, torch.float32) if real.itemsize > 1 else torch.float32
    term = torch.finfo(arithmetic).max * TERM
    if use == "averaged" or not is_parameter:
        return term, math.inf
    return term, min(LARGEST_STEPPED, torch.finfo(real).max / ROOM_FOR_STEPS)


def _of_set(name: str) -> str:
    return f"set '{name}': " if name else ""


def _check_weight(metrics: Json, metadata: dict[str, Json]) -> None:
    """What metrics say of their weight, if they do, must be usable: one client must not be the whole average."""
    for place in (metrics, metadata):
        if isinstance(place, dict) and "num_examples" in place:
            try:
                num_examples(place, may_be_zero=True)
            except ModelFileError as error:
                raise Refused("num_examples", error.message) from error


def _examples(task: Task, metadata: dict[str, Json]) -> float:
    """The weight of a reply."""
    try:
        return num_examples(metadata) if task.weighted else 1.0
    except ModelFileError as error:
        advice = ""
        if "num_examples" not in metadata:
            advice = " (packages for FEDn before 0.5 never say it; with round.weighting=equal all weigh the same)"
        raise Refused("num_examples", error.message + advice) from error
