"""The strategy of a coordinator: a step consists of the messages of its process up to its next commit."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpkg.coordinators.journal import STEADY, Differs, Journal, Round, Sent
from fedpkg.coordinators.process import END_PATIENCE_S, Averaged, Ended, Process, Workplace
from fedpkg.coordinators.protocol import (
    VERSION,
    Announce,
    Ask,
    Await,
    Commit,
    Error,
    Hello,
    Log,
    Mean,
    Message,
    Wanted,
)
from fedpkg.errors import ModelFileError, SessionFailed
from fedpkg.formats.mapped import MappedFile
from fedpkg.formats.model_file import read_model
from fedpkg.formats.records_file import read_records, records_in
from fedpkg.log import event
from fedpkg.shown import shown
from fedpkg.strategies.base import (
    Arrived,
    Asks,
    Payload,
    Replies,
    Reply,
    Request,
    State,
    Step,
    StepContext,
    StepResult,
)
from fedpkg.strategies.traits import Traits
from fedpkg.types import Json, ReplyKind
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

logger = logging.getLogger("fedpkg.coordinators")

MOST_STARTS = 3  # starts of a process per round: after so few, another start will most likely fail too
MOST_LOG_LINES = 100  # of a round
LONGEST_LINE = 500
_OF_A_PROGRAM = Traits(entry_points=(), treatment="elsewhere", ends_itself=True, takes_no_replies=True)
"""The entry points are only known when it asks."""
_LEAST_BYTES = 16 << 20  # for a file that it sends, whatever the size of the model
_LONGEST_REASON = 4000  # of a program that gives up, in characters; of a longer one, its beginning and its end
_LONGEST_FAILURE = 300  # of a client's failure, in characters
_MOST_FAILURES = 1000  # with words; of more failed clients, only the kind is told
_SMALL_BYTES = 256 << 10  # smaller replies of records become parts of one file


@dataclass
class Coordinator:
    """A strategy that runs as a process of the user's own code. Its state: the model, if there is one, and the recorded
    rounds.

    After a checkpoint, the rounds before it are no longer needed. The session that runs it sets ``workplace``; the
    strategy itself only holds the process, which it can restart at any time.

    Args:
        folder: the program's folder, or its one file.
        beside: further files that are put into the program's folder.
        logger: for the program's lines of log.
        but: files and folders in the program's folder that are not copied.
        remedy: what to do after an error of the program.
        files_of: what the log calls the program, where it says which files it has written.
        data_of: a client whose data the program can read in FEDN_DATA_PATH; "": the first one; "*": the folder in
            which those of all are. None: no data.
    """

    command: str
    folder: str
    parameters: Mapping[str, Json] = field(default_factory=dict)
    timeout_s: float = 600.0
    traits: Traits = _OF_A_PROGRAM
    beside: tuple[str, ...] = ()
    logger: logging.Logger = logger
    but: tuple[str, ...] = ()
    files_of: str = "server"
    remedy: str = "fix it and resume the session"
    data_of: str | None = None
    workplace: Workplace | None = None

    def __post_init__(self) -> None:
        self._process: Process | None = None
        self._rounds: list[Round] = []  # rounds that the process has seen
        self._seen: list[dict[str, Any]] = []  # the same rounds, as stored in the state

    def init(self, seed_model: Weights | None) -> State:
        return {**({} if seed_model is None else {"model": seed_model}), "rounds": [], "checkpoint": None}

    def step(self, state: State, ctx: StepContext) -> Step:
        if self.workplace is None:
            raise SessionFailed("a coordinator runs only in a session")
        journal = Journal(self.workplace.folder, self.workplace.form)
        if self._process is None or self._seen != state["rounds"]:
            self.close()
            self._rounds = [journal.read(one) for one in state["rounds"]]
        else:
            self._process.forget_files()
        round_ = Round(_start(state, ctx, journal, has_model=self.traits.has_model))
        journal.sweep([*self._rounds, round_])
        talk = _Talk(self, journal, round_, state.get("model"))
        result = None
        try:
            result = yield from talk.run(state)
        except SessionFailed as error:
            error.message = f"round {ctx.round_number}: the coordinator: {error.message}"
            raise
        except Differs as differs:
            raise SessionFailed(f"round {ctx.round_number}: the coordinator: {differs}", hint=STEADY) from None
        finally:
            if result is None or result.finished is not None:  # its files are kept before the session counts as ended
                self.close()
        self._seen = result.state["rounds"]
        self._rounds = [*self._rounds, round_] if self._seen else []
        return result

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None and (saved := process.close(patience_s=END_PATIENCE_S)):
            more = f" and {len(saved) - 5} more" if len(saved) > 5 else ""
            self.logger.info(
                "%s", shown(f"files of the {self.files_of}: {', '.join(saved[:5])}{more} in {process.saved}")
            )

    # ---- the process

    def exchange(
        self, journal: Journal, round_: Round, say: Mapping[str, Any] | None, deaths: list[str]
    ) -> tuple[Message, Sent]:
        """Send a message to the process, and receive its next one; a process that has ended is restarted.

        Raises:
            SessionFailed: it ends repeatedly, or sends an invalid message.
            Differs: its message differs from the recorded one.
        """
        most = max_bytes(journal, round_)
        while True:
            try:
                if self._process is None:
                    assert self.workplace is not None
                    sources = [Path(one) for one in (self.folder, *self.beside)]
                    self._process = Process(
                        self.workplace, journal, self.command, sources, timeout_s=self.timeout_s, but=self.but
                    )
                    self._replay(self._process, round_, most)
                elif say is not None:
                    self._process.tell(say, _files_of(say))
                return self._process.hear(max_bytes=most)
            except Ended as end:
                assert self._process is not None
                self._process.close()
                self._process = None
                deaths.append(end.ending.how)
                if end.ending.is_final or len(deaths) >= MOST_STARTS:
                    raise self._dead(deaths, end) from None
                event(logger, logging.WARNING, "coordinator.ended", how=end.ending.how)

    def _dead(self, deaths: Sequence[str], end: Ended) -> SessionFailed:
        times = f" ({len(deaths)} times in this round)" if len(deaths) > 1 else ""
        log = f"; its log ends with\n{end.ending.log}" if end.ending.log else ""
        hint = self.remedy
        if end.ending.is_final:
            hint = "a coordinator must commit each round; commit(finished=…) ends the session"
        return SessionFailed(f"it {end.ending.how} before it committed the round{times}{log}", hint=hint)

    def _replay(self, process: Process, last: Round, most: int | None) -> None:
        """Replay the messages of the last process to a new one, as long as it sends the same messages."""
        message, _ = process.hear(max_bytes=most)
        if not isinstance(message, Hello) or message.protocol != VERSION:
            raise SessionFailed(f"it must start with a hello of protocol {VERSION}, not {type(message).__name__}")
        assert self.workplace is not None
        hello: dict[str, Any] = {
            "protocol": VERSION,
            "files": str(process.files),
            "out": str(process.out),
            "parameters": dict(self.parameters),
            "run_config": dict(self.workplace.run_config),
            "created_at": self.workplace.created_at,
            "averages": self.workplace.average is not None,
        }
        for round_ in [*self._rounds, last]:
            start = round_.start if hello else {**round_.start, "checkpoint": None}
            process.tell({"type": "round", **start, **hello}, _files_of(start))
            hello = {}
            for number, (recorded, told) in enumerate(round_.messages, 1):
                self._expect(process, recorded, round_, number, most)
                process.tell(told, _files_of(told))
            if round_.commit is not None:
                self._expect(process, round_.commit, round_, len(round_.messages) + 1, most)
                process.forget_files()

    @staticmethod
    def _expect(process: Process, recorded: Mapping[str, Any], round_: Round, number: int, most: int | None) -> None:
        while True:
            message, sent = process.hear(max_bytes=most)
            if not isinstance(message, (Log, Announce)):
                sent.check(recorded, round_number=round_.start["round"], number=number)
                return


@dataclass(frozen=True)
class _Average:
    """The mean of replies' arrays, the name of its file, and the replies."""

    of: Averaged
    name: str | None
    replies: Sequence[Reply]


class _Talk:
    """One round of a coordinator."""

    def __init__(self, owner: Coordinator, journal: Journal, round_: Round, model: Weights | None) -> None:
        self.owner = owner
        self.journal = journal
        self.round = round_
        self.model = model
        self._deaths: list[str] = []
        self._lines = 0
        self._by_time: int | None = None  # the first message whose answer depends on time
        self._means: dict[str, tuple[Mean, Path]] = {}  # by request, what is wanted and the file that the clients got

    def run(self, state: State) -> Asks[StepResult]:
        """Send its requests until it commits; return the state after that, whose record is on disk."""
        sending, messages = self.journal.sending(self.round.start["round"]), self.round.messages
        said: Mapping[str, Any] | None = {**self.round.start, "checkpoint": None}
        try:
            while True:
                message, sent = self._next(said)
                sending.add(len(messages) + 1, sent)
                if isinstance(message, Commit):
                    self.round.commit = sent.to_json()
                    return self._result(message, sent, state)
                if isinstance(message, Await):
                    self._by_time = len(messages) if self._by_time is None else self._by_time
                    said = self._told((yield Arrived(message.number)))
                else:
                    said = self._told((yield [self._request(one, sent) for one in message.requests]))
                messages.append((sent.to_json(), dict(said)))
        except Differs:
            raise
        except BaseException:  # when the round is repeated, messages without an answer may differ
            answered = len(messages) if self._was_answered() else 0
            sending.forget(after=answered if self._by_time is None else min(answered, self._by_time))
            raise

    def _next(self, said: Mapping[str, Any] | None) -> tuple[Ask | Await | Commit, Sent]:
        """Send a message, and return the next one that asks or commits."""
        while True:
            message, sent = self.owner.exchange(self.journal, self.round, said, self._deaths)
            if isinstance(message, (Ask, Await, Commit)):
                return message, sent
            if isinstance(message, Error):
                raise SessionFailed(f"it gave up: {_ends(message.text)}", hint=self.owner.remedy)
            if isinstance(message, Hello):
                raise SessionFailed("it sent a second hello")
            if isinstance(message, Announce):
                assert self.owner.workplace is not None
                self.owner.workplace.announce(message.rounds)
            else:
                self._log(message.text)
            said = None

    def _result(self, commit: Commit, sent: Sent, state: State) -> StepResult:
        model = self.model
        if commit.model is not None or commit.mean_of is not None:
            if model is None and not self.owner.traits.makes_model:
                raise SessionFailed("it committed a model, but the session has none (strategy.has_model: false)")
            name = commit.model or f"mean of {commit.mean_of}"
            kept = self._mean_of(commit.mean_of) if commit.model is None else sent.files[commit.model]
            model = self._weights(name, kept).clone()
        rounds, checkpoint = [*state["rounds"], self.journal.write(self.round)], state["checkpoint"]
        if commit.checkpoint is not None:
            rounds, checkpoint = [], sent.files[commit.checkpoint]
        state = {**({} if model is None else {"model": model}), "rounds": rounds, "checkpoint": checkpoint}
        return StepResult(state, metrics=commit.metrics, finished=commit.finished)

    def _mean_of(self, request_id: str | None) -> str:
        """The file of the mean of the replies to a request of this round."""
        told = [one for _, said in self.round.messages for one in said["replies"] if one["id"] == request_id]
        found = [one["mean"]["path"] for one in told if "mean" in one and one["mean"]["path"] is not None]
        if len(found) != 1:
            raise SessionFailed(f"it committed the mean of the replies to request {request_id}, of which there is none")
        name: str = found[0]
        return name

    def _request(self, wanted: Wanted, sent: Sent) -> Request:
        payload: Payload = Records() if self.model is None or not self.owner.traits.has_model else self.model
        if wanted.payload is not None and wanted.payload_kind == "records":
            payload = self._records(wanted.payload, sent.files[wanted.payload])
        elif wanted.payload is not None:
            payload = self._weights(wanted.payload, sent.files[wanted.payload])
        if wanted.mean is not None:
            is_shared = wanted.payload is not None and wanted.payload_kind == "records" and not wanted.payloads
            if not (is_shared and wanted.reply_kind == "records" and wanted.wait == "all"):
                raise SessionFailed(
                    f"request {wanted.id} asks for the mean of replies; that is for records that are sent to all "
                    "clients alike, and whose replies are waited for"
                )
            self._means[wanted.id] = (wanted.mean, self.journal.file(sent.files[wanted.payload or ""]))
        return Request(
            request_id=wanted.id,
            payload=payload,
            clients=None if wanted.clients is None else tuple(wanted.clients),
            group=wanted.group,
            entry_point=wanted.entry_point,
            reply_kind=ReplyKind(wanted.reply_kind),
            reply=wanted.reply,
            sets=dict.fromkeys(wanted.sets),
            parameters=wanted.parameters,
            required=wanted.required,
            wait=wanted.wait,
            payloads=self._payloads(wanted, sent),
            timeout_s=wanted.timeout_s,
            phase=wanted.phase,
            as_files=wanted.reply_kind == "records",
        )

    def _payloads(self, wanted: Wanted, sent: Sent) -> dict[str, Records]:
        files: dict[str, MappedFile] = {}
        found: dict[tuple[str, int, int], Records] = {}
        for part in wanted.payloads.values():
            name, start, length = part
            try:
                if name not in files:
                    files[name] = MappedFile(self.journal.file(sent.files[name]), max_bytes=None)
                if part not in found:
                    found[part] = records_in(files[name].part(start, length))
            except ModelFileError as error:
                raise SessionFailed(f"its file '{name}' does not contain records: {error.message}") from error
        return {client_id: found[part] for client_id, part in wanted.payloads.items()}

    def _weights(self, name: str, kept: str) -> Weights:
        try:
            found = read_model(self.journal.file(kept), max_bytes=max_bytes(self.journal, self.round))
        except ModelFileError as error:
            raise SessionFailed(f"its file '{name}' is not a model: {error.message}") from error
        buffers = self.model.buffers if self.model is not None else ()
        return Weights(found, buffers=[one for one in buffers if one in found])

    def _records(self, name: str, kept: str) -> Records:
        try:
            return read_records(self.journal.file(kept))
        except ModelFileError as error:
            raise SessionFailed(f"its file '{name}' does not contain records: {error.message}") from error

    def _told(self, answers: Sequence[Replies]) -> dict[str, Any]:
        """The replies in the form of a message; their weights are stored as files."""
        told: list[dict[str, Any]] = []
        small: list[tuple[dict[str, Any], Path | bytes]] = []
        large: list[tuple[dict[str, Any], Path]] = []
        for replies in answers:
            one: dict[str, Any] = {
                "id": replies.request_id,
                "round": replies.round_number,
                "asked": list(replies.asked),
            }
            if replies.is_outstanding:
                told.append({**one, "missing": [], "replies": [], "is_outstanding": True})
                continue
            found = []
            average = self._averaged(replies)
            for reply in replies if average is None else average.replies:
                said = {
                    "client_id": reply.client_id,
                    "num_examples": reply.num_examples,
                    "metadata": dict(reply.metadata),
                    "metrics": reply.metrics,
                    "weights": {},
                }
                if average is not None and reply.client_id in average.of.contents:
                    small.append((said, average.of.contents[reply.client_id]))
                elif reply.file is None:
                    said["weights"] = {name: self.journal.keep(one) for name, one in _files_in(reply).items()}
                else:
                    (small if reply.file.stat().st_size < _SMALL_BYTES else large).append((said, reply.file))
                found.append(said)
            if average is not None:
                one["mean"] = {"path": average.name, **average.of.said}
            told.append({**one, "missing": list(replies.missing), "failures": _failures(replies), "replies": found})
        for (said, _), name in zip(large, self.journal.keep_files([path for _, path in large]), strict=True):
            said.update(weights={"": name})
        if small:
            contents = (one if isinstance(one, bytes) else one.read_bytes() for _, one in small)
            name, parts = self.journal.keep_parts(contents)
            for (said, _), part in zip(small, parts, strict=True):
                said.update(weights={"": name}, part=part)
        return {"type": "replies", "replies": told}

    def _averaged(self, replies: Replies) -> _Average | None:
        """The mean of the replies' arrays, if it is wanted, and the replies."""
        if replies.round_number != self.round.start["round"] or replies.request_id not in self._means:
            return None
        assert self.owner.workplace is not None and self.owner.workplace.average is not None
        found: list[Reply] = []

        def noted() -> Iterator[Reply]:
            for reply in replies:
                found.append(reply)
                yield reply

        average = self.owner.workplace.average(*self._means[replies.request_id], noted())
        name = None if average.suffix is None else self.journal.keep_written(average.write, average.suffix)
        return _Average(average, name, found)

    def _was_answered(self) -> bool:
        return any(one["replies"] for _, told in self.round.messages for one in told["replies"])

    def _log(self, text: str) -> None:
        self._lines += 1
        if self._lines <= MOST_LOG_LINES:
            self._log_line(logging.INFO, text[:LONGEST_LINE])
        elif self._lines == MOST_LOG_LINES + 1:
            self._log_line(logging.WARNING, "further lines of this round are not logged")

    def _log_line(self, level: int, text: str) -> None:
        if self.owner.logger is logger:
            event(logger, level, "coordinator.log", round=self.round.start["round"], text=text)
        else:  # an app's own lines, for the person who wrote them
            self.owner.logger.log(level, "%s", shown(text.expandtabs(4)))


def _start(state: State, ctx: StepContext, journal: Journal, *, has_model: bool) -> dict[str, Any]:
    clients = [
        {
            "client_id": one.client_id,
            "groups": list(one.groups),
            "num_examples": one.num_examples,
            "position": one.position,
            "attributes": dict(one.attributes),
        }
        for one in ctx.clients
    ]
    return {
        "round": ctx.round_number,
        "seed": int(ctx.rng.integers(1 << 62)),
        "clients": clients,
        "model": journal.keep(state["model"]) if has_model else None,
        "checkpoint": state["checkpoint"],
    }


def _files_in(reply: Reply) -> Mapping[str, Weights | Records]:
    """The parts of a reply that the coordinator gets as files; records in an update have no name."""
    return reply.sets if reply.records is None else {"": reply.records}


def _files_of(told: Mapping[str, Any]) -> set[str]:
    """The files that a message names."""
    if told.get("type") == "replies":
        return Round({"model": None}, [({}, dict(told))]).files
    return Round(dict(told)).files


def _ends(reason: str) -> str:
    """The reason, or its beginning and its end: the first says what failed, and the last which error it was."""
    half = _LONGEST_REASON // 2
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:half]}\n    …\n    {reason[-half:].lstrip()}"


def _failures(replies: Replies) -> dict[str, dict[str, str]]:
    """Why clients are missing, with the beginning of the reason."""
    return {
        client_id: {"word": one.kind, "text": one.message[:_LONGEST_FAILURE] if number < _MOST_FAILURES else ""}
        for number, (client_id, one) in enumerate(replies.failures.items())
    }


def max_bytes(journal: Journal, round_: Round) -> int | None:
    """The size limit of a model that it sends; None: the session has none."""
    model = round_.start["model"]
    return None if model is None else _LEAST_BYTES + 4 * journal.file(model).stat().st_size
