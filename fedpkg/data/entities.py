"""Entities: who takes part in a federation, described once, in a YAML or CSV file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from fedpkg.config import ClientsConfig, RunConfig
from fedpkg.errors import ConfigError, DataError, nearest
from fedpkg.small_files import SmallFile, csv_rows
from fedpkg.yaml_places import read_yaml

Attribute: TypeAlias = "str | int | float | bool"
_Value = TypeVar("_Value")

_KEYS = ("id", "parent", "data")
_PLACEHOLDER = re.compile(r"\{attributes\.([A-Za-z0-9_-]+)\}")
_HINT = "an entity has id, parent (the id of another), data (a path), and attributes of any name with one value each"
# Of vantage6's organizations; people, keys and passwords are left out.
_OF_AN_ORGANIZATION = ("domain", "address1", "address2", "zipcode", "country")


@dataclass(frozen=True)
class Entity:
    """A client, or something that clients belong to (a hospital, a country).

    Args:
        data: The path of its data, absolute.
        attributes: Values by any name: text, numbers, true or false.
        place: Where it is written, for messages.
    """

    entity_id: str
    parent: str | None = None
    data: Path | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    place: str = ""


class Entities:
    """All entities of a file, in its order. Those that are no parent are the clients."""

    def __init__(self, entities: Sequence[Entity]) -> None:
        self._by_id = {entity.entity_id: entity for entity in entities}
        parents = {entity.parent for entity in entities}
        self.clients = [entity for entity in entities if entity.entity_id not in parents]

    def __getitem__(self, entity_id: str) -> Entity:
        return self._by_id[entity_id]

    def __contains__(self, entity_id: str) -> bool:
        return entity_id in self._by_id

    def __iter__(self) -> Iterator[Entity]:
        return iter(self._by_id.values())

    @property
    def attributes(self) -> dict[str, None]:
        """The names of all attributes, each once."""
        return dict.fromkeys(name for entity in self for name in entity.attributes)

    def attributes_of(self, entity_id: str) -> dict[str, Attribute]:
        """The attributes of an entity; what it does not have comes from its parent, and from that one's."""
        found: dict[str, Attribute] = {}
        at: str | None = entity_id
        while at is not None:
            found = {**self._by_id[at].attributes, **found}
            at = self._by_id[at].parent
        return found

    def values(self, entity_id: str, name: str) -> list[str]:
        """What a pattern ``name=…`` of a group is compared with; for ``parent``, all that it belongs to."""
        if name == "parent":
            found, at = [], self._by_id[entity_id].parent
            while at is not None:
                found.append(at)
                at = self._by_id[at].parent
            return found
        value = self.attributes_of(entity_id).get(name)
        return [] if value is None else [as_text(value)]

    def has_attribute(self, name: str) -> bool:
        return name == "parent" or name in self.attributes


def as_text(value: Attribute) -> str:
    """A value as it stands in a group's pattern, an argument or a variable."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def entities_of(clients: ClientsConfig) -> Entities | None:
    """The entities of a configuration; None: it has none. Raises DataError: the file is wrong, or another one."""
    return None if clients.entities is None else read_entities(Path(clients.entities), sha256=clients.entities_sha256)


def digest_of(path: Path) -> str:
    """The SHA-256 of the file. Raises DataError."""
    return _read(path).sha256


def read_entities(path: Path, *, sha256: str | None = None) -> Entities:
    """Read a list of entities from YAML or CSV, or the organizations of vantage6's entities.yaml.

    Args:
        sha256: The digest that the file must have.

    Raises:
        DataError: An entity is wrong (with its place), or the file is another one.
    """
    file = _read(path)
    if sha256 is not None and (now := file.sha256) != sha256:
        raise DataError(
            f"{path} has changed since the session began: its digest was sha256:{sha256} and is now sha256:{now}",
            hint="restore the file, or start a new run",
            path=str(path),
        )
    rows = csv_rows(path, file.text) if path.suffix.lower() == ".csv" else _yaml_rows(path, file.text)
    entities = [_entity(path, place, row) for place, row in rows]
    if not entities:
        raise DataError(f"{path}: it lists no entities", hint=_HINT, path=str(path))
    _check(entities)
    return Entities(entities)


def _read(path: Path) -> SmallFile:
    return SmallFile.read(path, "the entities", "clients.entities is the path of a YAML or CSV file")


def _yaml_rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        tree, lines = read_yaml(text, source=str(path))
    except ConfigError as error:
        raise DataError(error.message, hint=error.hint, path=str(path)) from error
    if isinstance(tree, dict) and "organizations" in tree:
        yield from _of_vantage6(path, tree)
        return
    at: tuple[str, ...] = ()
    if isinstance(tree, dict) and list(tree) == ["entities"]:
        tree, at = tree["entities"], ("entities",)
    if not isinstance(tree, list):
        raise DataError(f"{path}: expected a list of entities", hint=_HINT, path=str(path))
    for number, row in enumerate(tree):
        line = lines.get((*at, str(number)))
        place = f"{path}, line {line}" if line else f"{path}, entity {number + 1}"
        if not isinstance(row, dict):
            raise DataError(f"{place}: not an entity but {row!r:.60}", hint=_HINT, path=str(path))
        yield place, {str(key): value for key, value in row.items()}


def _of_vantage6(path: Path, tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Collaborations are parents of the organizations that take part in them."""
    of: dict[str, str] = {}
    for collaboration in tree.get("collaborations") or ():
        name = str(collaboration.get("name")) if isinstance(collaboration, dict) else ""
        for one in (collaboration.get("participants") or ()) if name else ():
            participant = str(one.get("name") if isinstance(one, dict) else one)
            if of.setdefault(participant, name) != name:
                raise DataError(
                    f"{path}: {participant!r} takes part in {of[participant]!r} and in {name!r}",
                    hint="an entity has one parent: leave the other collaborations out",
                    path=str(path),
                )
        if name:
            yield f"{path}, collaboration {name!r}", {"id": name, "encrypted": collaboration.get("encrypted", True)}
    known = []
    for number, organization in enumerate(tree["organizations"] or ()):
        place = f"{path}, organization {number + 1}"
        if not isinstance(organization, dict) or not organization.get("name"):
            raise DataError(f"{place}: it has no name", path=str(path))
        known.append(name := str(organization["name"]))
        row = {key: organization.get(key) for key in _OF_AN_ORGANIZATION if organization.get(key) is not None}
        yield place, {"id": name, "parent": of.get(name), **row}
    if strange := next((one for one in of if one not in known), None):
        raise DataError(f"{path}: there is no organization {strange!r}{nearest(strange, known)}", path=str(path))


def _entity(path: Path, place: str, row: Mapping[str, Any]) -> Entity:
    if row.get("id") in (None, ""):
        raise DataError(f"{place}: an entity has no id", hint=_HINT, path=str(path))
    values = {key: value for key, value in row.items() if value is not None}
    for key, value in values.items():
        if not isinstance(value, (str, int, float, bool)):
            raise DataError(f"{place}: '{key}' must have one value, found {value!r:.60}", hint=_HINT, path=str(path))
    data = values.get("data")
    return Entity(
        str(values["id"]),
        str(values["parent"]) if "parent" in values else None,
        None if data is None else Path(os.path.abspath(path.parent / os.path.expanduser(str(data)))),
        {key: value for key, value in values.items() if key not in _KEYS},
        place,
    )


def _check(entities: Sequence[Entity]) -> None:
    """Raise DataError for two entities of one id, an unknown parent, and a circle of parents."""
    by_id: dict[str, Entity] = {}
    for entity in entities:
        if (other := by_id.setdefault(entity.entity_id, entity)) is not entity:
            raise DataError(f"{entity.place}: the id {entity.entity_id!r} is taken, by {other.place}")
    for entity in entities:
        above, at = [entity.entity_id], entity
        while at.parent is not None:
            if at.parent not in by_id:
                near = nearest(at.parent, by_id)
                raise DataError(f"{at.place}: there is no entity {at.parent!r}, its parent{near}", hint=_HINT)
            if at.parent in above:
                raise DataError(f"{entity.place}: the parents of {entity.entity_id!r} form a circle")
            above.append(at.parent)
            at = by_id[at.parent]


def filled_in(values: Mapping[str, _Value], attributes: Mapping[str, Attribute]) -> dict[str, _Value]:
    """Values, also those in lists, with a client's attributes in place of ``{attributes.NAME}``. Raises KeyError."""

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(one) for one in value]
        if not isinstance(value, str):
            return value
        return _PLACEHOLDER.sub(lambda match: as_text(attributes[match[1]]), value)

    return {name: filled(value) for name, value in values.items()}


def check_placeholders(config: RunConfig, client_ids: Sequence[str]) -> None:
    """Raise ConfigError if an argument or variable names an attribute that a client does not have."""
    sections = {f"arguments.{name}": given for name, given in config.arguments.items()}
    sections["environment"] = dict(config.environment)
    sections |= {f"clients.environment.{name}": dict(given) for name, given in config.clients.environment.items()}
    entities = entities_of(config.clients)
    for section, values in sections.items():
        for key, value in values.items():
            for name in _PLACEHOLDER.findall(str(value)):
                where = f"{section}.{key} has {{attributes.{name}}}"
                if entities is None:
                    raise ConfigError(
                        f"{where}, but clients.entities is not set", hint="set clients.entities to a file"
                    )
                without = next((one for one in client_ids if name not in entities.attributes_of(one)), None)
                if without is not None:
                    is_known = name in entities.attributes
                    near = "" if is_known else nearest(name, entities.attributes)
                    raise ConfigError(
                        f"{where}, but {entities[without].place}: {without!r} has no attribute {name!r}{near}",
                        hint="add it to this entity or to one of its parents"
                        if is_known
                        else f"attributes: {', '.join(entities.attributes)}",
                        key=f"{section}.{key}",
                    )
