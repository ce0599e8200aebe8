"""Errors of message apps on the server's side."""

from __future__ import annotations


class AppExitException(Exception):
    """An app ends with an error of its own."""


class AggregationError(AppExitException):
    """Replies cannot be aggregated."""


class InconsistentMessageReplies(AppExitException):
    """No reply has what a strategy needs; a single reply that lacks it is left out instead."""


class TooFewNodes(AppExitException):
    """A round needs more nodes than there are."""
