"""The program of a container of version 4 or 5: one function, its input and its result in files."""

from __future__ import annotations

import json
import os
from typing import Any

from fedpkg.analytics import calling, serialise
from fedpkg.analytics.errors import DeserializationError, EnvironmentVariableNotFoundError
from fedpkg.analytics.log import info
from fedpkg.analytics.v4 import environment
from fedpkg.analytics.v4.util import decoded


def wrap_algorithm(log_traceback: bool = True) -> None:
    """Run the function of INPUT_FILE in the module PKG_NAME, and write its result to OUTPUT_FILE, both as JSON.

    On an error, the process ends with exit code 1 and there is no result.

    Args:
        log_traceback: Print where the error was raised, too; its message can have values of the data.
    """
    with calling.ending_on_error(log_traceback=log_traceback):
        _run()


def load_input(input_file: str) -> Any:
    """Read an input.

    Raises:
        DeserializationError: It is no JSON.
    """
    with open(input_file, "rb") as file:
        try:
            return json.load(file)
        except ValueError as failure:
            raise DeserializationError(f"the input {input_file} is no JSON: {failure}") from failure


def _run() -> None:
    module = os.environ.get("PKG_NAME")
    if not module:
        raise EnvironmentVariableNotFoundError(
            "PKG_NAME is not set: the name of the algorithm's module, in a Dockerfile"
        )
    for name, value in list(os.environ.items()):
        if name != "INPUT_FILE" and value != (plain := decoded(value)):
            os.environ[name] = plain
    files = {name: decoded(os.environ.get(name, "")) for name in ("INPUT_FILE", "OUTPUT_FILE")}
    os.environ.update(files)
    for name, path in files.items():
        if not path:
            raise EnvironmentVariableNotFoundError(f"{name} is not set: the path of a file")
    info(f"module {module}, input {files['INPUT_FILE']}")
    given = load_input(files["INPUT_FILE"])
    if "ALGORITHM_METHOD" in os.environ:  # in version 5, the input has only the arguments
        given = {"method": os.environ["ALGORITHM_METHOD"], "kwargs": given}
    asked = calling.input_of(given)
    function = calling.find(calling.load(module), asked.method)
    result = calling.call(function, asked, environment.call())
    with open(files["OUTPUT_FILE"], "wb") as file:
        file.write(serialise.to_json(result, what=f"result of {asked.method}"))
    info(f"result in {files['OUTPUT_FILE']}")
