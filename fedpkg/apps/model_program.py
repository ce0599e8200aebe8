"""The program of a task that gives a ClientApp a model file, so that it serves any strategy of a run.yaml.

    python -m _fedpkg_model_app train | evaluate MODULE:OBJECT [KEY=VALUE …] -- IN OUT [--KEY=VALUE …]

The ClientApp gets the message that a ServerApp's strategy would send: the model as the record "arrays", and a record
"config" with the number of the round, the strategy's parameters and the arguments of the entry point. The values before
``--`` are the app's own configuration. OUT is the model of its reply, or its metrics as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedpkg.apps.client_program import answer, context_of, end, metrics_of, value_of
from fedpkg.apps.identity import run_id_of
from fedpkg.apps.message import DEFAULT_TTL, ErrorCode, Message, Metadata
from fedpkg.client.models import write_json
from fedpkg.client.task import Task, task
from fedpkg.records import Array, ArrayRecord, ConfigRecord, RecordDict

_RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def main(words: Sequence[str]) -> None:
    """Answer one call.

    Raises:
        SystemExit: If there is no usable reply; its code is an `ErrorCode`.
    """
    category, reference = words[:2]
    last = len(words) - 1 - list(reversed(words)).index("--")
    given, out, *more = words[last + 1 :]
    now, settings, arguments = task(), _values(words[2:last]), _values(word.lstrip("-") for word in more)
    own = {
        key: _like(settings[key], value) for key, value in {**now.run_config, **arguments}.items() if key in settings
    }
    run_config = {**_scalars(now.run_config), **settings, **own}
    context = context_of(now, run_id_of(now.session_id), run_config)
    arrays = ArrayRecord.from_file(given)
    message = _message(category, now, arrays, _config(now, arguments))

    def save(reply: Message) -> None:
        metrics = metrics_of(reply.content)
        if category == "evaluate":
            write_json(out, metrics)
            return
        _reply(now, arrays, _arrays_of(reply.content)).to_file(out)
        write_json(f"{out}-metadata", metrics)

    answer(reference, message, context, now.state_folder, save)


def _values(words: Iterable[str]) -> dict[str, Any]:
    """``KEY=VALUE`` by key; a value is JSON (also True and False), or else text."""
    found = {}
    for word in words:
        key, _, text = word.partition("=")
        found[key] = value_of(text.lower() if text in ("True", "False") else text)
    return found


def _like(usual: object, value: Any) -> Any:
    """A value with the type that the app's configuration has; a wrong one as it is."""
    if isinstance(usual, str):
        return value if isinstance(value, str) else json.dumps(value)
    return float(value) if isinstance(usual, float) and type(value) is int else value


def _scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if isinstance(value, (bool, int, float, str))}


def _config(now: Task, arguments: Mapping[str, Any]) -> ConfigRecord:
    parameters = _scalars(now.parameters)
    named = {key.replace("_", "-"): value for key, value in parameters.items()}  # proximal-mu, as apps call it
    return ConfigRecord({"server-round": now.round_number, **parameters, **named, **_scalars(arguments)})


def _message(category: str, now: Task, arrays: ArrayRecord, config: ConfigRecord) -> Message:
    about = Metadata(
        run_id=run_id_of(now.session_id),
        message_id=f"{now.round_number}-{category}",
        src_node_id=0,
        dst_node_id=now.partition_id + 1,
        reply_to_message_id="",
        group_id=str(now.round_number),
        created_at=0.0,  # no clock: the same call is the same message
        ttl=DEFAULT_TTL,
        message_type=category,
    )
    return Message(RecordDict({"arrays": arrays, "config": config}), metadata=about)


def _arrays_of(content: RecordDict) -> ArrayRecord:
    found = content.array_records
    if len(found) != 1:
        named = f" ({', '.join(map(repr, found))})" if found else ""
        end(_RAISED, f"the reply of the ClientApp has {len(found)} ArrayRecords{named}; a model is one ArrayRecord")
    return next(iter(found.values()))


def _reply(now: Task, given: ArrayRecord, trained: ArrayRecord) -> ArrayRecord:
    """The reply that the strategy expects, with the names and dtypes of the model that was given."""
    if now.reply_sets or now.reply == "gradient":
        what = f"the sets {', '.join(now.reply_sets)}" if now.reply_sets else "a gradient"
        end(_RAISED, f"the strategy expects {what}; a ClientApp answers with a model, so choose another strategy")
    if list(trained) == [str(index) for index in range(len(given))]:  # as ArrayRecord(list of arrays) calls them
        trained = ArrayRecord(dict(zip(given, trained.values(), strict=True)))
    if strange := sorted(given.keys() ^ trained.keys()):
        missing = [name for name in strange if name in given]
        what = f"lacks {', '.join(missing[:3])}" if missing else f"has {', '.join(strange[:3])}, which it was not given"
        end(_RAISED, f"the ArrayRecord of the reply {what}: reply with the arrays of the model that the message has")
    same = {name: _as(given[name], trained[name]) for name in given}
    if now.reply != "delta":
        return ArrayRecord(same)
    names = now.parameter_names or [name for name, one in given.items() if one.dtype.startswith(("float", "bfloat"))]
    rest = {name: one for name, one in same.items() if now.rest and name not in names}
    return ArrayRecord({**{name: Array(same[name].numpy() - given[name].numpy()) for name in names}, **rest})


def _as(given: Array, trained: Array) -> Array:
    return trained if trained.dtype == given.dtype else Array(trained.numpy().astype(given.dtype))
