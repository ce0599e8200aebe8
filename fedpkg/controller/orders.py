"""A session's orders, and the files of their inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from fedpkg.controller.context import SessionContext
from fedpkg.controller.receiving import Receiver
from fedpkg.controller.seeds import step_rng, task_seed
from fedpkg.data.entities import filled_in
from fedpkg.errors import ModelFileError, SessionFailed, StoreError
from fedpkg.files import NO_SPACE
from fedpkg.formats.model_file import write_model, write_sets
from fedpkg.formats.records_file import write_records
from fedpkg.replies.reading import RECORDS_BYTES, Reading, tensors_of
from fedpkg.rules import variables_of
from fedpkg.stores.base import ClientRow, ModelRow, RequestRow
from fedpkg.strategies.base import Payload, Request
from fedpkg.transforms.sections import sections_of
from fedpkg.types import Attribute, ReplyKind
from fedpkg.waist.order import Input, Order, ReplySpec, digest_of, name_of_call
from fedpkg.waist.place import PAYLOAD
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

_Value = TypeVar("_Value")
_RECORDS_PER_SENT, _RECORDS_WITH_MODEL = 4, 2  # size of a reply of records, by that of what was sent
_REST_OF_DELTAS = 2  # the first rules under which deltas include buffers and integers


def session_order(ctx: SessionContext, num_partitions: int) -> Order:
    """The part that all orders of a session share."""
    config = ctx.config
    return Order(
        task_id="",
        session_id=ctx.session.session_id,
        round_number=0,
        client_id="",
        entry_point="",
        package=ctx.session.package_digest,
        reply_spec="",
        num_partitions=num_partitions,
        run_config=dict(config.run_config),
        environment={**config.environment, **variables_of(ctx.session.rules)},
        threads=config.executor.threads,
        timeout_s=config.executor.timeout_s,
        limits=ctx.limits,
        isolation=ctx.isolation,
        started=ctx.started,
        log_bytes=config.limits.log_bytes,
    )


@dataclass(frozen=True)
class Ordering:
    """The orders of one request; the part that its clients share is computed once.

    Args:
        common: the shared part of the orders, including the request's.
        receive: receives the answers.
    """

    ctx: SessionContext
    common: Order
    reading: Reading
    receive: Receiver
    number: int

    @classmethod
    def of(
        cls, ctx: SessionContext, common: Order, request: Request, model: Weights | None, row: RequestRow
    ) -> Ordering:
        """Give the executor the request's specification of replies, and prepare its orders.

        Args:
            common: the session's.
            model: the global model; None: replies are not checked against it.
        """
        config, round_number = ctx.config, row.round_number
        template = _template(ctx, request, model)
        spec = _spec(ctx, request, template)
        if request.reply_kind not in (ReplyKind.UPDATE, ReplyKind.SETS):
            template = None  # replies are not compared with it
        digest = digest_of(spec)
        ctx.executor.know(spec, digest)
        common = msgspec.structs.replace(
            common,
            round_number=round_number,
            entry_point=request.entry_point,
            reply_spec=digest,
            request_id=request.request_id or None,
            arguments={**config.arguments.get("all", {}), **config.arguments.get(request.entry_point, {})},
            argument_style=config.argument_style or "",
            parameters=dict(request.parameters),
        )
        reading = Reading(spec)

        def sent(name: str) -> Weights | None:
            own = request.sets.get(name)
            return template if own is None else own

        receive = Receiver(ctx.executor, ctx.folder, reading, sent)
        number = row.number if request.seed_number is None else request.seed_number
        return cls(ctx, common, reading, receive, number)

    def order(self, client: ClientRow, *, attempt: int, state: str | None, is_first: bool, file: Input | None) -> Order:
        """One client's order.

        Args:
            state: token of the state from which the task starts.
            is_first: whether it is the client's first task in this round, and so perhaps its first of all.
        """
        ctx, common, client_id = self.ctx, self.common, client.client_id
        attributes = None if ctx.entities is None else ctx.entities.attributes_of(client_id)
        call = name_of_call(common.entry_point, attempt)
        return msgspec.structs.replace(
            common,
            task_id=f"{common.session_id}/{common.round_number}/{client.client_id}/{call}",
            client_id=client.client_id,
            partition_id=client.position,
            attributes=attributes or {},
            environment=_personal({**common.environment, **_of_groups(ctx, client_id)}, attributes),
            arguments=_personal({**common.arguments, **ctx.arguments_of(client_id, common.entry_point)}, attributes),
            attempt=attempt,
            input=file,
            seed=task_seed(ctx.session.seed, common.round_number, client.client_id, self.number),
            data=client.data_path,
            links={
                name: to
                for name, to in ctx.config.clients.links.items()
                if client.data_path is not None or to.startswith("/")
            },
            state=state,
            starts_up=is_first and state is None and client.last_num_examples is None and ctx.config.startup == "run",
        )


def _of_groups(ctx: SessionContext, client_id: str) -> dict[str, str]:
    """The environment variables of a client from its groups."""
    found: dict[str, str] = {}
    for group, variables in ctx.config.clients.environment.items():
        found.update(variables if client_id in ctx.members.get(group, ()) else {})
    return found


def _personal(values: Mapping[str, _Value], attributes: Mapping[str, Attribute] | None) -> dict[str, _Value]:
    """Arguments or variables with the values of a client's attributes in place of ``{attributes.device}``."""
    return dict(values) if attributes is None else filled_in(values, attributes)


def _template(ctx: SessionContext, request: Request, model: Weights | None) -> Weights | None:
    """The template that an update must fit; for a delta or gradient, only the parameters."""
    template = request.payload if isinstance(request.payload, Weights) else model
    rest = request.rest and request.reply == "delta" and ctx.session.rules >= _REST_OF_DELTAS
    if template is None or request.reply == "weights" or rest:
        return template
    return template.filter(frozenset(template.parameters).__contains__)


def _spec(ctx: SessionContext, request: Request, template: Weights | None) -> ReplySpec:
    is_metrics = request.reply_kind is ReplyKind.METRICS
    parameters = None
    if request.sets and template is not None:
        parameters = tensors_of(template.filter(frozenset(template.parameters).__contains__))
    sets = {name: parameters if one is None else tensors_of(one) for name, one in request.sets.items()}
    return ReplySpec(
        kind=request.reply_kind,
        tensors=None if template is None else tensors_of(template),
        reply=request.reply,
        sets=sets,
        transforms=sections_of(request.transforms),
        weighted=ctx.session.rules > 1 if is_metrics else ctx.config.round.weighting == "examples",
        use=request.use if ctx.session.rules > 1 else "former",
        suffix=ctx.form.suffix,
        max_bytes=ctx.config.limits.reply_bytes or _most_bytes_of_records(request, template),
    )


def _most_bytes_of_records(request: Request, template: Weights | None) -> int | None:
    """The size limit of records that are requested: it grows with what is sent. None: that of `Reading`."""
    payloads = [request.payload, *request.payloads.values()]
    sent = [one.num_bytes for one in payloads if isinstance(one, Records)]
    if request.reply_kind is not ReplyKind.RECORDS or not sent:
        return None
    model = 0 if template is None else _RECORDS_WITH_MODEL * template.num_bytes
    return RECORDS_BYTES + max(_RECORDS_PER_SENT * max(sent), model)


class Payloads:
    """The files of requests' payloads: the global model's own, or one that is written for a request.

    They are written again, with the same bytes, when the round is resumed: only the strategy's state is stored.
    """

    def __init__(
        self,
        ctx: SessionContext,
        round_number: int,
        model: Weights | None = None,
        row: ModelRow | None = None,
        *,
        prefix: str = PAYLOAD,
    ) -> None:
        self._ctx = ctx
        self._prefix = prefix  # of the names of its files
        self._round_number = round_number
        self.model = model  # the global model that clients get; None: it is not needed in memory
        self._file: Input | None = None  # of the global model
        if row is not None:
            self._file = self._input(ctx.models.path(row.digest, row.suffix), digest=row.digest)
        self._written: dict[int, tuple[Payload, Input, Path]] = {}
        self._batches = 0

    def input(self, payload: Payload) -> Input:
        """The file that a request's tasks get.

        Raises:
            ModelFileError: the session's form of model files cannot hold it.
            StoreError: the disk is full.
        """
        if payload is self.model and self._file is not None:
            return self._file
        if id(payload) not in self._written:
            self._written[id(payload)] = self._write(payload)
        return self._written[id(payload)][1]

    def clear(self, *, but: Collection[int] = ()) -> None:
        """All requests so far have been answered, except those with the payloads of these ids."""
        for payload_id in self._written.keys() - but:
            _, _, path = self._written.pop(payload_id)
            path.unlink(missing_ok=True)
        self._batches += 1

    @property
    def files(self) -> set[Path]:
        """The written files that are still needed."""
        return {path for _, _, path in self._written.values()}

    def travelled(self, request: Request) -> tuple[Weights, int]:
        """The payload after the transforms of the download, and the bytes sent to each client."""
        assert request.download is not None and isinstance(request.payload, Weights)
        ctx, payload = self._ctx, request.payload
        seed = int(step_rng(ctx.session.seed, self._round_number, "download").integers(1 << 62))
        content = request.download.encode(payload, payload, seed=seed, is_difference=True).content
        folder = ctx.round_folder(self._round_number)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{PAYLOAD}-") as file:
                file.write(content)
                file.flush()
                received, _ = request.download.decode(Path(file.name), payload, is_difference=True)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise ctx.disk_is_full(f"{folder}: {error.strerror}") from error
        if name := received.first_non_finite(payload):
            raise SessionFailed(
                f"round {self._round_number}, request {request.request_id}: tensor '{name}' is not finite after the "
                "transforms of the download"
            )
        return received, len(content)

    def _write(self, payload: Payload) -> tuple[Payload, Input, Path]:
        ctx = self._ctx
        name = f"{self._prefix}-{self._batches}-{len(self._written) + 1}{ctx.form.suffix}"
        path = ctx.round_folder(self._round_number) / name
        sets: tuple[str, ...] = ()
        model = ""
        try:
            if isinstance(payload, Weights):
                write_model(path, payload, ctx.form)
            elif isinstance(payload, Records):
                write_records(path, payload, ctx.form)
            else:
                write_sets(path, payload, ctx.form)
                sets, model = tuple(payload), self._set_of_the_model(payload)
        except ModelFileError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            if error.__cause__.errno in NO_SPACE:
                raise ctx.disk_is_full(error.message) from error
            resume = f"fedpkg session resume {ctx.session.session_id}"
            raise StoreError(error.message, hint=f"when the cause is fixed: {resume}", path=str(path)) from error
        file = self._input(path, sets=sets, model=model)
        return payload, msgspec.structs.replace(file, records=isinstance(payload, Records)), path

    def _set_of_the_model(self, payload: Mapping[str, Weights]) -> str:
        return next((name for name, weights in payload.items() if weights is self.model), "")

    def _input(self, path: Path, *, digest: str = "", sets: tuple[str, ...] = (), model: str = "") -> Input:
        reference = str(path.relative_to(self._ctx.home))
        return Input(reference=reference, size_bytes=path.stat().st_size, digest=digest, sets=sets, model=model)
