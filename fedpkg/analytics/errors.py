"""Errors of federated algorithms, by the names under which algorithms import, raise and catch them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


class AlgorithmError(Exception):
    """Base of all errors of an algorithm."""


class PrivacyViolation(AlgorithmError):
    """The call would disclose data."""


class PrivacyThresholdViolation(PrivacyViolation):
    """There are too few rows, or too few in a cell, for the result to be released."""


class DataError(AlgorithmError):
    """The data cannot be used."""


class DataReadError(DataError):
    """A database cannot be read."""


class DataTypeError(DataError):
    """A column has another type than the function needs."""


class AlgorithmRuntimeError(AlgorithmError):
    """A function failed while it ran."""


class AlgorithmExecutionError(AlgorithmRuntimeError):
    """A function raised an error."""


class MaxIterationsReached(AlgorithmRuntimeError):
    """An iterative method has not ended within its number of iterations."""


class ConvergenceError(AlgorithmRuntimeError):
    """An iterative method does not converge."""


class ClientError(AlgorithmError):
    """A call of the client failed."""


class SubtakCreationError(ClientError):
    """A subtask cannot be created. The spelling is that of the published name."""


class CollectOrganizationError(ClientError):
    """The organizations cannot be listed."""


class CollectResultsError(ClientError):
    """Results cannot be had."""


class InputError(AlgorithmError):
    """The input of a function is wrong."""


class UserInputError(InputError):
    """What the user gave is wrong."""


class WrongArguments(UserInputError, TypeError):
    """A function is called without an argument that it needs, or with one that it does not take."""


class DeserializationError(InputError):
    """An input or result cannot be read."""


DeserializationException = DeserializationError  # the name in earlier versions


class EnvironmentVariableError(InputError):
    """An environment variable has a value that cannot be used."""


class EnvironmentVariableNotFoundError(EnvironmentVariableError):
    """An environment variable is not set."""


class AlgorithmInitializationError(AlgorithmError):
    """An algorithm cannot be started."""


class AlgorithmModuleNotFoundError(AlgorithmInitializationError):
    """The algorithm's module cannot be imported."""


class MethodNotFoundError(AlgorithmInitializationError):
    """The algorithm has no such function."""


class NodePermissionException(AlgorithmError):
    """The node does not allow the call."""


class SessionActionMismatchError(AlgorithmError):
    """A function was called as another kind of function than it is declared to be."""


class DataFrameNotFound(AlgorithmError):
    """There is no data frame of this name."""


def handle_data_errors(func: Callable[..., Any]) -> Callable[..., Any]:
    """Let only errors of the algorithm leave a function. Others can have values of the data in their message, so an
    AlgorithmRuntimeError with their type takes their place.
    """

    @wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return func(*args, **kwargs)
        except AlgorithmError:
            raise
        except Exception as error:
            reason = f"{func.__name__} raised a {type(error).__name__}; its message may have data, and is not shown"
            raise AlgorithmRuntimeError(reason) from None

    return wrapper


handle_pandas_errors = handle_data_errors
