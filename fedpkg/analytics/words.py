"""Words of the published interface: statuses, kinds of functions and databases, and names of environment variables."""

from __future__ import annotations

from enum import Enum


class Word(str, Enum):
    """A text with a name."""

    __str__ = str.__str__

    def __format__(self, format_spec: str) -> str:
        return str.__format__(self.value, format_spec)

    @classmethod
    def list(cls) -> list[str]:
        return [one.value for one in cls]


class AlgorithmStepType(Word):
    """What a function of version 5 is for."""

    DATA_EXTRACTION = "data_extraction"
    PREPROCESSING = "preprocessing"
    FEDERATED_COMPUTE = "federated_compute"
    CENTRAL_COMPUTE = "central_compute"
    POST_PROCESSING = "postprocessing"

    @classmethod
    def is_compute(cls, step_type: str) -> bool:
        return step_type in (cls.FEDERATED_COMPUTE, cls.CENTRAL_COMPUTE)


class DatabaseType(Word):
    """The type of a database."""

    CSV = "csv"
    EXCEL = "excel"
    SPARQL = "sparql"
    PARQUET = "parquet"
    SQL = "sql"
    OMOP = "omop"
    OTHER = "other"
    FOLDER = "folder"


class TaskStatus(Word):
    """The status of a task or of a run."""

    PENDING = "pending"
    INITIALIZING = "initializing"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    START_FAILED = "start failed"
    NO_DOCKER_IMAGE = "non-existing Docker image"
    CRASHED = "crashed"
    KILLED = "killed by user"
    NOT_ALLOWED = "not allowed"
    UNKNOWN_ERROR = "unknown error"
    # of version 5
    WAITING = "awaiting"
    DATAFRAME_NOT_FOUND = "dataframe not found"
    DEPENDED_ON_FAILED_TASK = "depended on failed task"
    UNEXPECTED_OUTPUT = "unexpected output"

    @classmethod
    def has_failed(cls, status: str) -> bool:
        return has_task_failed(status)

    @classmethod
    def has_finished(cls, status: str) -> bool:
        return has_task_finished(status)


RunStatus = TaskStatus
_OPEN = (TaskStatus.INITIALIZING, TaskStatus.ACTIVE, TaskStatus.PENDING, TaskStatus.WAITING)


def has_task_failed(status: str) -> bool:
    """Whether a task or run has ended without a result."""
    return status not in (*_OPEN, TaskStatus.COMPLETED)


def has_task_finished(status: str) -> bool:
    """Whether a task or run has ended."""
    return status not in _OPEN


class ContainerEnvNames(Word):
    """Environment variables of a function of version 5."""

    FUNCTION_ACTION = "FUNCTION_ACTION"
    INPUT_FILE = "INPUT_FILE"
    ALGORITHM_METHOD = "ALGORITHM_METHOD"
    OUTPUT_FILE = "OUTPUT_FILE"
    SESSION_FOLDER = "SESSION_FOLDER"
    SESSION_FILE = "SESSION_FILE"
    HOST = "HOST"
    PORT = "PORT"
    API_PATH = "API_PATH"
    CONTAINER_TOKEN = "CONTAINER_TOKEN"
    DATABASE_URI = "DATABASE_URI"
    DATABASE_TYPE = "DATABASE_TYPE"
    DB_PARAM_PREFIX = "DB_PARAM_"
    USER_REQUESTED_DATAFRAMES = "USER_REQUESTED_DATAFRAMES"
    USER_REQUESTED_DATABASES = "USER_REQUESTED_DATABASES"
    TASK_ID = "TASK_ID"
    NODE_ID = "NODE_ID"
    ORGANIZATION_ID = "ORGANIZATION_ID"
    COLLABORATION_ID = "COLLABORATION_ID"


class AuthStatus(Word):
    """Whether a node is there."""

    ONLINE = "online"
    OFFLINE = "offline"


__version__ = "fedpkg"
APPNAME = "vantage6"
STRING_ENCODING = "utf-8"
ENV_VAR_EQUALS_REPLACEMENT = "!"
DATAFRAME_MULTIPLE_KEYWORD = "multiple"
DATAFRAME_WITHIN_GROUP_SEPARATOR = ","
DATAFRAME_BETWEEN_GROUPS_SEPARATOR = ";"
