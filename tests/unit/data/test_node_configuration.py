"""Configurations of nodes, of every version of vantage6: what they give, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedpkg.data.entities import Secret
from fedpkg.data.node_configuration import read_federation, read_node_configuration, read_server_configuration
from fedpkg.errors import ConfigError

TWO_LEVELS = r"""
application:
  api_key: 0ba9c3f1-secret
  server_url: https://server
  port: '5000'
  api_path: /api
  task_dir: C:\Users\me\tasks
  databases:
    default: C:\Users\me\data
  logging: {level: DEBUG, file: node.log, use_console: true, backup_count: 5, max_size: 1024, loggers: [{name: x}]}
  encryption: {enabled: false, private_key:}
environments: {acc: {}, dev: {}, prod: {}, test: {}}
"""
FLAT = """
api_key: 0ba9c3f1-secret
api_path: /api
databases:
  - {label: default, uri: data/a.csv, type: csv, mount_mode: ro}
  - {label: Lab, uri: lab.xlsx, sheet_name: first}
  - {label: omop, uri: "postgresql://h/omop", type: omop, env: {user: me, password: geheim}}
  - {label: images, uri: ./data}
  - {label: semi, uri: data/a.csv, options: {separator: ";", decimal: ","}}
algorithm_env: {GPU_MODE: DISABLED, GLM_MINIMUM_ROWS: 10}
policies:
  allowed_algorithms: [harbor/average]
  minimum_rows: 10
  require_algorithm_pull: false
share_algorithm_logs: false
docker_registries: [{registry: x}]
port: 443
"""
VERSION_5 = """
node:
  apiKey: 0ba9c3f1-secret
  server: {url: http://h, port: 7601, path: /api}
  logging: {level: INFO}
  databases:
    fileBased: [{name: default, uri: /mnt/default.csv, type: csv, volumePath: /x, originalName: y}]
    serviceBased: [{name: postgres, uri: "postgres://h/x", type: other}]
  kubeConfig: /root/.kube/config
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "die Knoten"
    (path / "data").mkdir(parents=True)
    return path


def write(folder: Path, text: str, name: str = "node.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_file_of_two_levels_gives_the_node(folder: Path) -> None:
    node = read_node_configuration(write(folder, TWO_LEVELS))
    assert {label: (one.uri, one.kind) for label, one in node.databases.items()} == {
        "default": (r"C:\Users\me\data", "folder")
    }
    assert node.ignored == ("server_url", "port", "api_path", "task_dir", "logging", "encryption")
    assert node.api_key is not None and "0ba9" not in repr(node)


def test_a_flat_file_gives_the_node(folder: Path) -> None:
    node = read_node_configuration(write(folder, FLAT))
    assert {label: (one.uri, one.kind) for label, one in node.databases.items()} == {
        "default": (str(folder / "data" / "a.csv"), "csv"),
        "Lab": (str(folder / "lab.xlsx"), "excel"),
        "omop": ("postgresql://h/omop", "omop"),
        "images": (str(folder / "data"), "folder"),
        "semi": (str(folder / "data" / "a.csv"), "csv"),
    }
    assert node.databases["Lab"].options == {"sheet_name": "first"}
    assert node.databases["semi"].options == {"separator": ";", "decimal": ","}
    assert node.environment == {
        "GPU_MODE": "DISABLED",
        "GLM_MINIMUM_ROWS": "10",
        "OMOP_DB_PARAM_USER": "me",
        "OMOP_DB_PARAM_PASSWORD": "geheim",
    }
    assert node.policy["minimum_rows"] == 10 and not node.share_logs
    assert node.ignored == ("api_path", "docker_registries", "port")


def test_a_file_of_version_5_gives_the_node(folder: Path) -> None:
    node = read_node_configuration(write(folder, VERSION_5))
    assert {label: (one.uri, one.kind) for label, one in node.databases.items()} == {
        "default": ("/mnt/default.csv", "csv"),
        "postgres": ("postgres://h/x", "sql"),
    }
    assert node.api_key is not None and node.ignored == ("server", "logging", "kubeConfig")


def test_images_of_the_first_versions_are_a_rule(folder: Path) -> None:
    node = read_node_configuration(write(folder, "databases: {default: a.csv}\nallowed_images: ['^harbor/[a-z]+']\n"))
    assert node.policy == {"allowed_algorithms": ["^harbor/[a-z]+"]}


def test_the_application_or_the_only_environment_is_the_node(folder: Path) -> None:
    path = write(folder, "environments: {dev: {databases: {default: a.csv}}, prod: {databases: {default: b.csv}}}\n")
    with pytest.raises(ConfigError, match=r"it has several environments: dev, prod\s+try +leave only one in the file"):
        read_node_configuration(path)
    path = write(folder, "application: {}\nenvironments: {dev: {}, prod: {databases: {default: b.csv}}}\n")
    node = read_node_configuration(path)
    assert list(node.databases) == ["default"] and node.ignored == ()
    path = write(folder, "application: {port: 1}\nenvironments: {dev: {}, prod: {policies: {minimum_rows: 10}}}\n")
    assert read_node_configuration(path).ignored == ("port", "environments.prod")


def test_a_file_with_nothing_is_a_node_without_anything(folder: Path) -> None:
    assert read_node_configuration(write(folder, "api_key:\n")).databases == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("environments: {dev: {port: x}, prod: {databases: {default: a}}}", "'environments.dev.port': expected a port"),
        ("application: {databases: {}}\nenvironments: {prod: 3}", "'environments.prod': expected keys and values"),
        ("application: {}\nport: 3", "'port': it is neither in 'application' nor in one of 'environments'"),
        ("databases: {}\nnode: {policies: {minimum_rows: 3}}", "line 1: 'databases': it is outside of 'node'"),
        ("port: true", "line 1: 'port': expected a port, found True"),
        ("port: '50x'", "expected a port"),
        ("api_key: ''", "'api_key': it must be a text"),
        ("server_url: 3", "expected a text"),
        ("logging: {level: LOUD}", "'logging.level': expected one of DEBUG"),
        ("logging: {max_size: 16}", "expected a size above 16 kB"),
        ("logging: {backup_count: 0}", "expected a whole number above 0"),
        ("encryption: {enabled: 'no'}", "'encryption.enabled': expected true or false"),
        ("share_algorithm_logs: 1", "expected true or false"),
        ("databases: data.csv", "expected a list"),
        ("databases: {default: 3}", "'databases.default': expected keys and values, found 3"),
        ("databases: [{uri: a.csv}]", "a database needs a label"),
        ("databases: [{label: a}]", "the database 'a' has no uri"),
        ("databases: [{label: a, uri: x, type: cvs}]", "unknown type 'cvs'; did you mean 'csv'"),
        ("databases: [{label: a, uri: x, seperator: ';'}]", "no such key; did you mean 'separator'"),
        ("databases: [{label: a, uri: x, separator: 3}]", "'databases.0.separator': expected a text, found 3"),
        ("databases: [{label: a, uri: x, mount_mode: rw}]", "expected copy or ro"),
        ("databases: [{label: a, uri: x}, {label: A, uri: y}]", "there are two databases 'A'"),
        ("algorithm_env: {a-b: 1}", "is not a name of an environment variable"),
        ("algorithm_env: {FEDN_DATA_PATH: /}", "the runner sets"),
        ("algorithm_env: {a: [1]}", "expected one value"),
        ("policy: {minimum_rows: 3}", "'policy': there is no such key; did you mean 'policies'"),
        ("minimum_rows: 3", "it is a rule of 'policies'"),
        ("policies: {minimum_row: 3}", "node.yaml, line 1: policies.minimum_row: there is no such rule"),
        ("policies: {allowed_users: [1]}", "it cannot be kept"),
        ("policies: [1]", "expected keys and values"),
        ("[1]", "expected keys and values"),
    ],
)
def test_a_wrong_field_is_an_error_with_its_place(folder: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read_node_configuration(write(folder, text + "\n"))
    assert "node.yaml" in str(caught.value)


def test_nodes_of_a_folder_belong_to_organizations_by_name_or_key(folder: Path) -> None:
    write(folder, FLAT, "anything.yaml")
    write(folder, "databases: {default: b.csv}", "small-organization.yml")
    write(folder, "application: {description: Test, jwt_secret_key: x, logging: {level: info}, port: 5000}", "s.yaml")
    write(folder, "no yaml", "data.csv")
    keys = {"IKNL": Secret("0ba9c3f1-secret"), "Other": Secret("x")}
    found = read_federation(folder, ["IKNL", "Small Organization", "Other"], api_keys=keys)
    assert {name: next(iter(node.databases)) for name, node in found.nodes.items()} == {
        "IKNL": "default",
        "Small Organization": "default",
    }
    assert found.server is not None and (found.server.description, found.server.log_level) == ("Test", "INFO")
    assert found.ignored == ("api_path", "docker_registries", "port", "jwt_secret_key")
    write(folder, "databases: {default: b.csv}", "Small Organization.yaml")
    with pytest.raises(ConfigError, match=r"is the configuration of Small Organization already"):
        read_federation(folder, ["IKNL", "Small Organization"], api_keys=keys)


def test_one_file_is_the_configuration_of_all_nodes(folder: Path) -> None:
    found = read_federation(write(folder, FLAT), ["a", "b"])
    assert found.nodes["a"] is found.nodes["b"]


def test_a_file_of_nobody_and_an_empty_folder_are_errors(folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is no configuration of a node"):
        read_federation(folder, ["a"])
    write(folder, "databases: {}", "nroth.yaml")
    with pytest.raises(ConfigError, match="no organization has this name or this API key; did you mean 'north'"):
        read_federation(folder, ["north", "south"])


def test_a_servers_configuration_gives_its_description_and_logging(folder: Path) -> None:
    text = "application: {}\nenvironments: {prod: {description: A test, uri: 'sqlite:///x', logging: {level: DEBUG}}}"
    server = read_server_configuration(write(folder, text, "v6server.yaml"))
    assert (server.description, server.log_level, server.ignored) == ("A test", "DEBUG", ("uri",))
    with pytest.raises(ConfigError, match=r"logging\.level"):
        read_server_configuration(write(folder, "logging: {level: 3}", "v6server.yaml"))


def test_secrets_are_equal_and_not_shown() -> None:
    one: Any = Secret("a")
    assert one.is_same(Secret("a")) and not one.is_same(Secret("b")) and f"{one} {one!r}".count("a") == 0
