"""The programs of images of versions 1 to 3: one function, whose input, token and result are files.

The node names these in environment variables: INPUT_FILE, TOKEN_FILE, OUTPUT_FILE, and the database in
USER_REQUESTED_DATABASE_LABEL and LABEL_DATABASE_URI, or only in DATABASE_URI. With FEDPKG_ALLOW_PICKLE=1 the files may
have pickles.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, BinaryIO

from fedpkg.analytics import calling, serialise, tokens
from fedpkg.analytics.current import Call, current
from fedpkg.analytics.errors import EnvironmentVariableNotFoundError, UserInputError
from fedpkg.analytics.legacy import calling as legacy
from fedpkg.analytics.log import error, info
from fedpkg.analytics.node import DEFAULT, Node
from fedpkg.analytics.v4.environment import NoTasks
from fedpkg.analytics.v4.wrappers import load_data


class DataFormat(Enum):
    """Formats of inputs and results."""

    JSON = "json"
    PICKLE = "pickle"


class WrapperBase:
    """Runs a function on the data that `load_data` reads. Subclasses may read them in their own way."""

    kind = "csv"

    def wrap_algorithm(
        self, module: str, load_data: bool = True, use_new_client: bool = False, log_traceback: bool = False
    ) -> None:
        """Run the function of INPUT_FILE, and write its result to OUTPUT_FILE. After an error, the exit code is 1.

        Args:
            load_data: Whether the function gets data; otherwise None.
            use_new_client: Whether a central function gets an AlgorithmClient.
            log_traceback: Print where the error was raised, too; its message can have values of the data.
        """
        with calling.ending_on_error(log_traceback=log_traceback):
            input_ = load_input(_variable("INPUT_FILE"))
            with open(_variable("TOKEN_FILE"), encoding="utf-8") as file:
                token = file.read().strip()
            label, uri = _database()
            data = self.load_data(uri, input_) if load_data else None
            output = _dispatched(data, input_, module, token, label, use_new_client)
            write_output(input_.get("output_format"), output, _variable("OUTPUT_FILE"))

    @classmethod
    def load_data(cls, database_uri: str, input_data: Mapping[str, Any]) -> Any:
        """Read the database; ``query`` and ``sheet_name`` are keys of the input."""
        if cls.kind in ("sql", "sparql", "omop") and not input_data.get("query"):
            raise UserInputError(
                f'a database of type {cls.kind} needs a query in the input: {{"query": …, "method": …}}'
            )
        options = legacy.database_options(input_data, cls.kind)
        return load_data(database_uri, cls.kind, options.get("query"), options.get("sheet_name"))


class CSVWrapper(WrapperBase):
    pass


class ExcelWrapper(WrapperBase):
    kind = "excel"


class ParquetWrapper(WrapperBase):
    kind = "parquet"


class SQLWrapper(WrapperBase):
    kind = "sql"


class SparqlDockerWrapper(WrapperBase):
    kind = "sparql"


class OMOPWrapper(WrapperBase):
    kind = "omop"


class MultiDBWrapper(WrapperBase):
    kind = "multidb"

    @classmethod
    def load_data(cls, database_uri: str, input_data: Mapping[str, Any]) -> dict[str, str]:
        """The URIs of all databases by their labels; nothing is read."""
        labels = json.loads(_variable("DB_LABELS"))
        return {label: _variable(f"{label.upper()}_DATABASE_URI") for label in labels}


CsvWrapper = DockerWrapper = CSVWrapper
_KINDS: dict[str, type[WrapperBase]] = {
    one.kind: one for one in (CSVWrapper, ExcelWrapper, ParquetWrapper, SQLWrapper, SparqlDockerWrapper, OMOPWrapper)
}


def select_wrapper(database_type: str) -> WrapperBase:
    """The wrapper for a type of database.

    Raises:
        UserInputError: There is no such type.
    """
    if database_type not in _KINDS:
        raise UserInputError(f"there is no database type {database_type!r}; there are: {', '.join(_KINDS)}")
    return _KINDS[database_type]()


def auto_wrapper(
    module: str, load_data: bool = True, use_new_client: bool = False, log_traceback: bool = False
) -> None:
    """Run a function on a database of the type that the node names."""
    try:
        wrapper = select_wrapper(os.environ.get(f"{_label().upper()}_DATABASE_TYPE", "csv").lower())
    except UserInputError as failure:
        error(str(failure))
        sys.exit(1)
    wrapper.wrap_algorithm(module, load_data, use_new_client, log_traceback)


def docker_wrapper(
    module: str, load_data: bool = True, use_new_client: bool = False, log_traceback: bool = False
) -> None:
    """Run a function on a CSV file."""
    CSVWrapper().wrap_algorithm(module, load_data, use_new_client, log_traceback)


csv_wrapper = docker_wrapper


def _running(kind: type[WrapperBase], what: str) -> Callable[..., None]:
    def wrapper(module: str, use_new_client: bool = False, log_traceback: bool = False) -> None:
        kind().wrap_algorithm(module, True, use_new_client, log_traceback)

    wrapper.__doc__ = what
    return wrapper


sparql_wrapper = _running(SparqlDockerWrapper, "Say why a function cannot run on a SPARQL endpoint.")
parquet_wrapper = _running(ParquetWrapper, "Run a function on a Parquet file.")
excel_wrapper = _running(ExcelWrapper, "Run a function on a sheet of an Excel file.")
sql_wrapper = _running(SQLWrapper, "Run a function on the rows of a query.")
omop_wrapper = _running(OMOPWrapper, "Say why a function cannot run on an OMOP database.")
multidb_wrapper = _running(MultiDBWrapper, "Run a function that gets the URIs of all databases, by their labels.")


# ---- parts, which programs of their own use


def dispatch_rpc(
    data: Any,
    input_data: Mapping[str, Any],
    module: str,
    token: str,
    use_new_client: bool = False,
    log_traceback: bool = False,
) -> Any:
    """Call the function that an input asks for. After an error, the process ends with exit code 1."""
    with calling.ending_on_error(log_traceback=log_traceback):
        return _dispatched(data, input_data, module, token, DEFAULT, use_new_client)


dispact_rpc = dispatch_rpc  # the spelling before version 3


def _dispatched(data: Any, input_: Mapping[str, Any], module: str, token: str, label: str, use_new_client: bool) -> Any:
    function = legacy.find(calling.load(module), input_)
    legacy.check(function, input_)
    of = current()
    if of is None:
        backend = NoTasks(tokens.identity_of(token), [label])
        of = Call(backend, Node(backend.organization_id), [label], lambda _: data)
    else:
        tokens.check(token, of.backend)
    info(f"calling {legacy.function_name(input_)} of module {module}")
    return legacy.call(function, input_, data, of, new_client=use_new_client, allow_pickle=_may_pickle())


def load_input(input_file: str) -> Any:
    """Read an input: JSON or typed values after their word, or a pickle, if these are allowed."""
    with open(input_file, "rb") as file:
        return legacy.read_input(file.read(), allow_pickle=_may_pickle())


def write_output(output_format: str | None, output: Any, output_file: str) -> None:
    """Write a result, in the format that the input asks for."""
    data = serialise.write(output, output_format or None, what="the result", allow_pickle=_may_pickle())
    with open(output_file, "wb") as file:
        file.write(data)


def serialize(data: Any, data_format: DataFormat | str) -> bytes:
    """Write a value in a format, without the word before it."""
    form = data_format.value if isinstance(data_format, DataFormat) else data_format
    written = serialise.write(data, form, what="the value", allow_pickle=_may_pickle())
    return written.partition(b".")[2]


def deserialize(file: BinaryIO, data_format: DataFormat | str) -> Any:
    """Read a value that `serialize` wrote."""
    form = data_format.value if isinstance(data_format, DataFormat) else data_format.lower()
    content = file.read()
    if form == "json":
        return serialise.from_json(content, what="the value")
    known = content if content[:1] == b"\x80" else b"typed." + content
    return serialise.read(known, what="the value", allow_pickle=_may_pickle())


def load(data: bytes) -> Any:
    """Read a value with or without the word of its format."""
    return serialise.read(data, what="the value", allow_pickle=_may_pickle())


def _may_pickle() -> bool:
    return os.environ.get("FEDPKG_ALLOW_PICKLE") == "1"


def _label() -> str:
    return os.environ.get("USER_REQUESTED_DATABASE_LABEL") or DEFAULT


def _database() -> tuple[str, str]:
    """The label and the URI of the database."""
    label = _label()
    name = f"{label.upper()}_DATABASE_URI"
    return label, os.environ[name] if name in os.environ else _variable("DATABASE_URI")


def _variable(name: str) -> str:
    if name not in os.environ:
        raise EnvironmentVariableNotFoundError(
            f"environment variable {name} is not set, so this program is not run by a node. Run the algorithm with "
            "'fedpkg algorithm run'"
        )
    return os.environ[name]
