"""Entities: who takes part in a federation, described once, in a YAML or CSV file."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from fedpkg.config import ClientsConfig, RunConfig
from fedpkg.errors import ConfigError, DataError, nearest
from fedpkg.small_files import SmallFile, csv_rows
from fedpkg.types import Attribute
from fedpkg.yaml_places import read_yaml

_Value = TypeVar("_Value")

_PLAIN = frozenset((str, int, float, bool))
_PLACEHOLDER = re.compile(r"\{attributes\.([A-Za-z0-9_-]+)\}")
_HINT = "an entity has id, parent (the id of another), data (a path), and attributes of any name with one value each"
# Of vantage6's organizations; people, keys and passwords are left out.
_OF_AN_ORGANIZATION = ("domain", "address1", "address2", "zipcode", "country")
_KEYS_OF_A_PARTICIPANT = ("api-key", "api_key")  # in versions 1 and 2, and later


class Secret:
    """A text that is never shown."""

    def __init__(self, text: str) -> None:
        self._text = text

    def is_same(self, other: Secret) -> bool:
        return self._text == other._text

    def __repr__(self) -> str:
        return "Secret(…)"


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
    """All entities of a file, in its order. Those that are no parent are the clients.

    Args:
        api_keys: The API keys of clients, by which the configurations of their nodes are found.
        ignored: Keys of the file that are not used.
    """

    def __init__(
        self, entities: Sequence[Entity], api_keys: Mapping[str, Secret] | None = None, ignored: Sequence[str] = ()
    ) -> None:
        self.api_keys = api_keys or {}
        self.ignored = tuple(ignored)
        self._by_id = {entity.entity_id: entity for entity in entities}
        self._above: dict[str | None, tuple[str, ...]] = {None: ()}  # by parent: all that its children belong to
        parents = {entity.parent for entity in entities}
        self.clients = [entity for entity in entities if entity.entity_id not in parents]

    def __getitem__(self, entity_id: str) -> Entity:
        return self._by_id[entity_id]

    def __contains__(self, entity_id: str) -> bool:
        return entity_id in self._by_id

    def __iter__(self) -> Iterator[Entity]:
        return iter(self._by_id.values())

    @functools.cached_property
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

    def parents_of(self, entity_id: str) -> tuple[str, ...]:
        """All that an entity belongs to, from the top."""
        parent = self._by_id[entity_id].parent
        if (found := self._above.get(parent)) is None:
            above, at = list[str](), parent
            while at is not None:
                above.append(at)
                at = self._by_id[at].parent
            found = self._above[parent] = tuple(reversed(above))
        return found

    def values(self, entity_id: str, name: str) -> Sequence[str]:
        """What a pattern ``name=…`` of a group is compared with; for ``parent``, all that it belongs to."""
        if name == "parent":
            return self.parents_of(entity_id)
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
    return _entities_in(file, os.path.abspath(path.parent))


@functools.lru_cache(maxsize=4)  # a session asks for them in several places, and 100,000 of them take a second
def _entities_in(file: SmallFile, folder: str) -> Entities:
    """The entities of a file; paths of data are relative to its folder."""
    path, of_vantage6 = file.path, _OfVantage6(file.path)
    is_csv = path.suffix.lower() == ".csv"
    rows = csv_rows(path, file.text) if is_csv else _yaml_rows(path, file.text, of_vantage6)
    entities = [_entity(path, folder, place, row) for place, row in rows]
    if not entities:
        raise DataError(f"{path}: it lists no entities", hint=_HINT, path=str(path))
    _check(entities)
    return Entities(entities, of_vantage6.api_keys, tuple(of_vantage6.ignored))


def _read(path: Path) -> SmallFile:
    return SmallFile.read(path, "the entities", "clients.entities is the path of a YAML or CSV file")


def _yaml_rows(path: Path, text: str, of_vantage6: _OfVantage6) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        tree, lines = read_yaml(text, source=str(path))
    except ConfigError as error:
        raise DataError(error.message, hint=error.hint, path=str(path)) from error
    if isinstance(tree, dict) and "organizations" in tree:
        yield from of_vantage6.rows(tree)
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


class _OfVantage6:
    """The organizations of vantage6's entities.yaml. Collaborations are parents of those that take part in them.

    Fields may be absent. Of wrong ones only the place is told, as many are secrets.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.api_keys: dict[str, Secret] = {}
        self.ignored: dict[str, None] = {}

    def rows(self, tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        self._pass_over("", tree, ("organizations", "collaborations"))
        of: dict[str, str] = {}
        for place, collaboration in self._listed(tree.get("collaborations"), "collaboration"):
            name = self._name(place, collaboration)
            self._pass_over("collaborations.", collaboration, ("name", "participants", "encrypted"))
            is_encrypted = collaboration.get("encrypted", True)
            if not isinstance(is_encrypted, (bool, type(None))):
                self._wrong(place, "'encrypted' must be true or false")
            participants = self._list(place, "participants", collaboration.get("participants"))
            for one in participants:
                participant = self._participant(place, one)
                if of.get(participant) == name:
                    self._wrong(place, f"the participant {participant!r} is named twice")
                if of.setdefault(participant, name) != name:
                    self._wrong(
                        "",
                        f"{participant!r} takes part in {of[participant]!r} and in {name!r}",
                        "an entity has one parent: leave the other collaborations out",
                    )
            if participants:  # without children it would be a client
                yield place, {"id": name, "encrypted": is_encrypted}
        known: list[str] = []
        for place, organization in self._listed(tree["organizations"], "organization"):
            known.append(name := self._name(place, organization))
            self._pass_over("organizations.", organization, ("name", *_OF_AN_ORGANIZATION))
            self._list(place, "users", organization.get("users"))
            row = {key: organization.get(key) for key in _OF_AN_ORGANIZATION if organization.get(key) is not None}
            yield place, {"id": name, "parent": of.get(name), **row}
        if strange := next((one for one in of if one not in known), None):
            self._wrong("", f"there is no organization {strange!r}{nearest(strange, known)}")

    def _participant(self, place: str, one: Any) -> str:
        """The name of a participant, which is a name, or a name with an API key."""
        if not isinstance(one, dict):
            if not isinstance(one, str) or not one:
                self._wrong(place, "a participant must be a name, or {name: …, api_key: …}")
            return str(one)
        name = self._name(f"{place}, a participant", one)
        self._pass_over("participants.", one, ("name", *_KEYS_OF_A_PARTICIPANT))
        keys = [one[key] for key in _KEYS_OF_A_PARTICIPANT if one.get(key) is not None]
        if len(keys) > 1 or not all(isinstance(key, (str, int)) and not isinstance(key, bool) for key in keys):
            self._wrong(place, f"the participant {name!r} must have one api_key, a text")
        if keys:
            self.api_keys[name] = Secret(str(keys[0]))
        return name

    def _listed(self, given: Any, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for number, one in enumerate(self._list("", f"{what}s", given), 1):
            place = f"{what} {number}"
            if not isinstance(one, dict):
                self._wrong(place, "expected keys and values")
            name = one.get("name")
            yield f"{self.path}, {what} {name!r}" if isinstance(name, str) and name else f"{self.path}, {place}", one

    def _list(self, place: str, key: str, given: Any) -> list[Any]:
        if given is not None and not isinstance(given, list):
            self._wrong(place, f"'{key}' must be a list")
        return given or []

    def _name(self, place: str, one: dict[str, Any]) -> str:
        name = one.get("name")
        if name in (None, ""):
            self._wrong(place, "it has no name")
        if not isinstance(name, (str, int, float)) or isinstance(name, bool):
            self._wrong(place, "its name must be a text")
        return str(name)

    def _pass_over(self, where: str, one: dict[str, Any], used: Sequence[str]) -> None:
        self.ignored |= dict.fromkeys(f"{where}{key}" for key in one if key not in used)

    def _wrong(self, place: str, what: str, hint: str | None = None) -> NoReturn:
        whole = place if place.startswith(str(self.path)) else f"{self.path}{f', {place}' if place else ''}"
        raise DataError(f"{whole}: {what}", hint=hint, path=str(self.path))


def _entity(path: Path, folder: str, place: str, row: Mapping[str, Any]) -> Entity:
    values = {key: value for key, value in row.items() if value is not None}
    if values.get("id", "") == "":
        raise DataError(f"{place}: an entity has no id", hint=_HINT, path=str(path))
    if not _PLAIN.issuperset(map(type, values.values())):
        key, value = next((key, value) for key, value in values.items() if type(value) not in _PLAIN)
        raise DataError(f"{place}: '{key}' must have one value, found {value!r:.60}", hint=_HINT, path=str(path))
    entity_id, parent, data = values.pop("id"), values.pop("parent", None), values.pop("data", None)
    return Entity(
        str(entity_id),
        None if parent is None else str(parent),
        None if data is None else Path(os.path.abspath(os.path.join(folder, os.path.expanduser(str(data))))),
        values,
        place,
    )


def _check(entities: Sequence[Entity]) -> None:
    """Raise DataError for two entities of one id, an unknown parent, and a circle of parents."""
    by_id: dict[str, Entity] = {}
    for entity in entities:
        if (other := by_id.setdefault(entity.entity_id, entity)) is not entity:
            raise DataError(f"{entity.place}: the id {entity.entity_id!r} is taken, by {other.place}")
    known = set[str | None]([None])  # whose parents are all right
    for entity in entities:
        above, at = [entity.entity_id], entity
        while at.parent not in known:
            assert at.parent is not None
            if at.parent not in by_id:
                near = nearest(at.parent, by_id)
                raise DataError(f"{at.place}: there is no entity {at.parent!r}, its parent{near}", hint=_HINT)
            if at.parent in above:
                circle = [*above[above.index(at.parent) :], at.parent]
                shown = " → ".join(circle if len(circle) <= 8 else [*circle[:4], "…", *circle[-3:]])
                raise DataError(
                    f"{entity.place}: the parents of {entity.entity_id!r} form a circle: {shown}",
                    hint="remove the parent of one of them",
                )
            above.append(at.parent)
            at = by_id[at.parent]
        known.update(above)


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
