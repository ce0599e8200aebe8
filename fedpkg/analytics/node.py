"""What a node knows: its organization, its databases by label, its environment and its policy, from its node.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "node.json"  # in the folder of a node's data
DEFAULT = "default"  # the label of a database that is used unless others are named


@dataclass(frozen=True)
class Database:
    """A database of a node.

    Args:
        uri: A path or a URL; in a node.json, a path is relative to the folder of that file.
        kind: csv, parquet, excel, sql, folder, or any word that a node's configuration uses.
        options: Such as query, sheet_name and preprocessing.
        source: Where its owner has it, for messages, if ``uri`` is a copy.
    """

    label: str
    uri: str
    kind: str = "csv"
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class Node:
    """The node of one organization. Ids count from 1.

    Args:
        environment: Variables for its algorithms.
        policy: Plain values, for `fedpkg.analytics.policy.policy_of`; empty: it allows everything.
        algorithm: What the runner knows of the algorithm: name, digest, signers, and its functions by name.
        initiator: The host of the central function, from which all tasks come: its name and its id, as texts.
        shares_logs: Whether the researcher sees what an algorithm prints, and the texts of its exceptions.
        withheld: Labels of databases that the policy keeps from every algorithm, with the rule.
    """

    organization_id: int = 1
    organization: str = ""
    collaboration_id: int = 1
    collaboration: str = ""
    databases: Mapping[str, Database] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    algorithm: Mapping[str, Any] = field(default_factory=dict)
    initiator: Sequence[str] = ()
    shares_logs: bool = True
    withheld: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_guarded(self) -> bool:
        """Whether the node has a policy to keep, or keeps what algorithms print to itself."""
        return bool(self.policy or self.withheld) or not self.shares_logs

    @property
    def node_id(self) -> int:
        """That of its organization, which has one node."""
        return self.organization_id


def read_node(folder: str) -> Node:
    """The node whose data are in a folder. The URIs of its files are then absolute paths.

    Raises:
        OSError, ValueError: The folder has no readable node.json.
    """
    with open(os.path.join(folder, FILE), encoding="utf-8") as file:
        told = json.load(file)
    databases = {one["label"]: Database(**{**one, "uri": _absolute(folder, one["uri"])}) for one in told["databases"]}
    return Node(**{**told, "databases": databases})


def keeps_policy(folder: Path) -> bool:
    """Whether data are those of a node with a policy, which a call by hand would not keep."""
    return (folder / FILE).is_file() and bool(read_node(str(folder)).policy)


def write_node(folder: str, node: Node) -> None:
    """Write a node.json."""
    told = {**asdict(node), "databases": [asdict(one) for one in node.databases.values()]}
    with open(os.path.join(folder, FILE), "w", encoding="utf-8") as file:
        json.dump(told, file, indent=1)


def _absolute(folder: str, uri: str) -> str:
    return uri if "://" in uri else os.path.join(folder, uri)
