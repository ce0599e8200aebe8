"""Every error that fedpkg raises on purpose.

    FedpkgError                      exit code 1
    ├── ConfigError                  3   a run.yaml, an override or an option is wrong
    ├── PackageError                 4   a compute package cannot be used
    │   ├── SpecError                    … its fedn.yaml is wrong
    │   ├── ArchiveError                 … its archive is unsafe or damaged
    │   └── EnvironmentFailed            … its environment cannot be made
    ├── ModelFileError               5   a model file or its metadata cannot be read or written
    │   └── ModelMismatch                … or it does not fit the global model
    ├── DataError                    6   the clients' data cannot be read or split
    │   └── FederatedDataError           … a message app asks for data that there are not
    │       └── NoColumn                     … for a column
    ├── StoreError                   7   the home folder cannot be used
    │   ├── HomeLocked                   … another controller holds it
    │   ├── OtherSchema                  … its database is of an older or newer fedpkg
    │   └── NotFound                     … it has no such session, model or round
    ├── WaistError                   1   an order, an answer or a part of one is malformed
    ├── DispatchError                8   an entry point cannot be run at all
    │   ├── NotIsolated                  … its isolation cannot be set up, so it is not run
    │   └── EntryPointFailed             … or it ran and failed
    ├── AggregationError             9   updates cannot be folded
    │   └── NotSaid                      … a client does not report the number that weights its update
    ├── SessionFailed               10   too few clients answered; the session stopped
    ├── SessionError                11   a session cannot be started, resumed or read in its present state
    │   └── ServerOnly                   … a script uses something that only a FEDn server has
    └── Interrupted                130   the user (or a signal) stopped the run; it can be resumed

An error has what happened and where (``message``) and what to do (``hint``); further facts are in ``fields``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class FedpkgError(Exception):
    """Base of all errors that fedpkg raises on purpose.

    Args:
        message: What happened, and where.
        hint: What the user can do about it.
        fields: Facts for programs (client_id, round_number, path …).
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.message}\n    try      {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only arguments do not survive pickle by themselves.
        return _rebuild, (type(self), self.message, self.hint, self.fields)


def _rebuild(cls: type[FedpkgError], message: str, hint: str | None, fields: dict[str, Any]) -> FedpkgError:
    return cls(message, hint=hint, **fields)


class ConfigError(FedpkgError):
    exit_code = 3


class PackageError(FedpkgError):
    exit_code = 4


class SpecError(PackageError):
    pass


class ArchiveError(PackageError):
    pass


class EnvironmentFailed(PackageError):
    pass


class ModelFileError(FedpkgError):
    exit_code = 5


class ModelMismatch(ModelFileError):
    pass


class DataError(FedpkgError):
    exit_code = 6


class FederatedDataError(DataError, ValueError):
    """A dataset cannot be found, read or divided, or a call asks for something that it does not have."""


class NoColumn(FederatedDataError, KeyError):
    """A dataset of a message app has no such column."""


class StoreError(FedpkgError):
    exit_code = 7


class HomeLocked(StoreError):
    pass


class OtherSchema(StoreError):
    pass


class NotFound(StoreError):
    pass


class WaistError(FedpkgError):
    """An order, an answer or a part of one is malformed."""


class DispatchError(FedpkgError):
    exit_code = 8


class NotIsolated(DispatchError):
    pass


class EntryPointFailed(DispatchError):
    pass


class AggregationError(FedpkgError):
    exit_code = 9


class NotSaid(AggregationError):
    pass


class SessionFailed(FedpkgError):
    exit_code = 10


class SessionError(FedpkgError):
    exit_code = 11


class ServerOnly(SessionError):
    pass


class Interrupted(FedpkgError):
    exit_code = 130


def nearest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'rounds'?"`` for a misspelt word, or an empty string when nothing is near."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""
