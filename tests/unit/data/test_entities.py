"""Entities: who takes part, from YAML, CSV and vantage6's entities.yaml; their groups and attributes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpkg.config import ClientsConfig, DataConfig, RunConfig
from fedpkg.data.clients import client_groups, prepare_clients
from fedpkg.data.entities import Secret, check_placeholders, digest_of, filled_in, read_entities
from fedpkg.errors import ConfigError, DataError

YAML = """\
- {id: north, region: cold}
- {id: south}
- id: phone-1
  parent: north
  device: phone
  lr: 0.1
- {id: phone-2, parent: south, device: phone, lr: 0.2, region: hot}
- {id: server, parent: south, device: server, lr: 1, fast: true}
"""
CSV = """\
id,parent,device,lr,region,fast
north,,,,cold,
south,,,,,
phone-1,north,phone,0.1,,
phone-2,south,phone,0.2,hot,
server,south,server,1,,true
"""
VANTAGE6 = """\
organizations:
  - name: IKNL
    domain: iknl.nl
    address1:
    country: Netherlands
    public_key: LS0tLS1CRUdJ
    users:
      - {username: admin, firstname: admin, lastname: robot, password: secret}
  - name: Small Organization
    domain: ???
collaborations:
  - name: ZEPPELIN
    participants: [IKNL, {name: Small Organization, api-key: 123}]
    tasks: ["hello-world"]
    encrypted: false
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "wer da ist"
    path.mkdir()
    return path


def write(folder: Path, text: str, name: str = "entities.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def clients_of(path: str, **more: object) -> list[str]:
    clients = ClientsConfig(entities=path, **more)  # type: ignore[arg-type]
    return [client.client_id for client in prepare_clients(clients, cache=Path(path).parent / "cache", seed=0)]


@pytest.mark.parametrize(("text", "name"), [(YAML, "e.yaml"), ("entities:\n" + YAML, "e.yml"), (CSV, "e.csv")])
def test_entities_that_are_no_parent_are_the_clients(folder: Path, text: str, name: str) -> None:
    path = write(folder, text, name)
    assert clients_of(path) == ["phone-1", "phone-2", "server"]
    assert clients_of(path, count=2) == ["phone-1", "phone-2"]
    found = read_entities(Path(path))
    assert {key: str(value) for key, value in found.attributes_of("phone-1").items()} == {
        "region": "cold",
        "device": "phone",
        "lr": "0.1",
    }
    assert found.attributes_of("phone-2")["region"] == "hot"


def test_a_dataset_is_split_among_the_entities(folder: Path) -> None:
    clients = ClientsConfig(entities=write(folder, YAML), data=DataConfig(dataset="sklearn/iris"))
    found = prepare_clients(clients, cache=folder / "cache", seed=0)
    assert [(client.client_id, client.num_examples) for client in found] == [
        ("phone-1", 40),
        ("phone-2", 40),
        ("server", 40),
    ]


def test_entities_have_data_of_their_own_and_folders_are_looked_up(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / "data" / name).mkdir(parents=True)
    path = write(folder, "- {id: a, data: data/a, size: big}\n- {id: b, data: data/b}\n")
    found = prepare_clients(ClientsConfig(entities=path), cache=folder / "cache", seed=0)
    assert [client.path for client in found] == [folder / "data" / "a", folder / "data" / "b"]
    assert clients_of(path, folders=str(folder / "data")) == ["a", "b"]
    (folder / "data" / "c").mkdir()
    with pytest.raises(DataError, match="has no client 'c'"):
        clients_of(path, folders=str(folder / "data"))


def test_groups_are_patterns_of_ids_attributes_and_parents(folder: Path) -> None:
    groups = {
        "phones": ["device=ph*"],
        "southern": ["parent=south"],
        "cold": ["region=cold"],
        "quick": ["fast=true", "phone-1"],
    }
    clients = ClientsConfig(entities=write(folder, YAML), groups=groups)
    assert client_groups(clients, ["phone-1", "phone-2", "server"]) == {
        "phones": ("phone-1", "phone-2"),
        "southern": ("phone-2", "server"),
        "cold": ("phone-1",),
        "quick": ("phone-1", "server"),
    }
    wrong = ClientsConfig(entities=clients.entities, groups={"g": ["device=phon"]})
    with pytest.raises(DataError, match=r"no client has 'device' like 'phon'; did you mean 'phone'\?"):
        client_groups(wrong, ["phone-1"])
    wrong = ClientsConfig(entities=clients.entities, groups={"g": ["devise=phone"]})
    with pytest.raises(DataError, match=r"no entity has an attribute 'devise'; did you mean 'device'\?"):
        client_groups(wrong, ["phone-1"])
    bare = ClientsConfig(entities=write(folder, "- {id: phone-1}\n"), groups={"g": ["region=north"]})
    with pytest.raises(DataError, match=r"no entity has an attribute 'region'\s+try +attributes: none"):
        client_groups(bare, ["phone-1"])


def test_vantage6_organizations_are_entities_without_their_people_and_keys(folder: Path) -> None:
    path = write(folder, VANTAGE6)
    assert clients_of(path) == ["IKNL", "Small Organization"]
    found = read_entities(Path(path))
    assert found["IKNL"].parent == "ZEPPELIN"
    assert found["IKNL"].attributes == {"domain": "iknl.nl", "country": "Netherlands"}
    assert "secret" not in repr(list(found)) and "LS0t" not in repr(list(found))
    assert client_groups(ClientsConfig(entities=path, groups={"all": ["parent=ZEPPELIN"]}), clients_of(path)) == {
        "all": ("IKNL", "Small Organization")
    }


def test_api_keys_of_participants_are_kept_and_not_shown(folder: Path) -> None:
    found = read_entities(Path(write(folder, VANTAGE6)))
    assert list(found.api_keys) == ["Small Organization"] and found.api_keys["Small Organization"].is_same(
        Secret("123")
    )
    assert found.ignored == ("collaborations.tasks", "organizations.public_key", "organizations.users")
    later = VANTAGE6.replace("api-key: 123", "api_key: 9f0c")
    assert read_entities(Path(write(folder, later))).api_keys["Small Organization"].is_same(Secret("9f0c"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("organizations: {name: a}", "'organizations' must be a list"),
        ("organizations: [a]", "organization 1: expected keys and values"),
        ("organizations: [{domain: a}]", "organization 1: it has no name"),
        ("organizations: [{name: [geheim]}]", "its name must be a text"),
        ("organizations: [{name: a, users: geheim}]", "organization 'a': 'users' must be a list"),
        ("organizations: [{name: a, domain: {x: 1}}]", "'domain' must have one value"),
        ("organizations: [{name: a}, {name: a}]", "the id 'a' is taken"),
        ("organizations: [{name: a}]\ncollaborations: [{participants: [a]}]", "collaboration 1: it has no name"),
        ("organizations: [{name: a}]\ncollaborations: [{name: c, participants: a}]", "'participants' must be a list"),
        ("organizations: [{name: a}]\ncollaborations: [{name: c, participants: [3]}]", "a participant must be a name"),
        ("organizations: [{name: a}]\ncollaborations: [{name: c, encrypted: 'no'}]", "'encrypted' must be true or"),
        (
            "organizations: [{name: a}]\ncollaborations: [{name: c, participants: [{name: a, api_key: [geheim]}]}]",
            "the participant 'a' must have one api_key",
        ),
        (
            "organizations: [{name: a}]\n"
            "collaborations: [{name: c, participants: [{name: a, api_key: x, api-key: y}]}]",
            "must have one api_key",
        ),
        ("organizations: [{name: ab}]\ncollaborations: [{name: c, participants: [abc]}]", "did you mean 'ab'"),
    ],
)
def test_a_wrong_field_of_vantage6_is_an_error_without_its_value(folder: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_entities(Path(write(folder, text)))
    assert "entities.yaml" in str(caught.value) and "geheim" not in str(caught.value)


def test_collaborations_may_be_absent_or_empty(folder: Path) -> None:
    for more in ("", "collaborations:\n", "collaborations: [{name: c}]\n"):
        assert clients_of(write(folder, "organizations: [{name: a}, {name: b}]\n" + more))[:2] in (
            ["a", "b"],
            ["c", "a"],
        )


def config_of(folder: Path, **more: object) -> RunConfig:
    clients = ClientsConfig(entities=write(folder, YAML))
    return RunConfig(package="p", rounds=1, clients=clients, **more)  # type: ignore[arg-type]


def test_attributes_are_filled_into_arguments_and_variables(folder: Path) -> None:
    config = config_of(folder, arguments={"train": {"lr": "{attributes.lr}", "epochs": 3}})
    check_placeholders(config, ["phone-1", "server"])
    entities = read_entities(Path(str(config.clients.entities)))
    values = {"lr": "{attributes.lr}", "names": ["{attributes.device}-{client_id}"], "n": 3, "other": "{x}"}
    assert filled_in(values, entities.attributes_of("server")) == {
        "lr": "1",
        "names": ["server-{client_id}"],
        "n": 3,
        "other": "{x}",
    }


def test_an_attribute_that_a_client_lacks_is_refused_before_the_run(folder: Path) -> None:
    config = config_of(folder, arguments={"train": {"lr": "{attributes.lrr}"}})
    with pytest.raises(ConfigError, match=r"arguments\.train\.lr has .*line 3: 'phone-1' has no attribute 'lrr'.*'lr'"):
        check_placeholders(config, ["phone-1"])
    config = config_of(folder, environment={"FAST": "{attributes.fast}"})
    check_placeholders(config, ["server"])
    with pytest.raises(
        ConfigError, match="'phone-1' has no attribute 'fast'\n    try      add it to this"
    ):  # others have it
        check_placeholders(config, ["server", "phone-1"])
    without = RunConfig(package="p", rounds=1, clients=ClientsConfig(count=1), environment={"A": "{attributes.x}"})
    with pytest.raises(ConfigError, match=r"but clients\.entities is not set"):
        check_placeholders(without, ["client-0"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {parent: a}\n", r"line 1: an entity has no id"),
        ("- {id: a}\n- {id: a}\n", r"line 2: the id 'a' is taken, by .*line 1"),
        (
            "- {id: a, parent: nrth}\n- {id: north}\n",
            r"there is no entity 'nrth', its parent; did you mean 'north'",
        ),
        ("- {id: a, parent: b}\n- {id: b, parent: a}\n", r"line 1: the parents of 'a' form a circle"),
        ("- {id: a, tags: [x]}\n", r"line 1: 'tags' must have one value, found \['x'\]"),
        ("- {id: a, data: nowhere}\n", "the data of 'a' does not exist"),
        ("- {id: a, data: .}\n- {id: b}\n", r"line 2: 'b' has no data, and other clients have"),
        ("- {id: .a}\n", r"'\.a' cannot be a client's id"),
        ("- {id: a/b}\n", "'a/b' cannot be a client's id"),
        ("- a\n", "line 1: not an entity but 'a'"),
        ("who: [a]\n", "expected a list of entities"),
        ("", "expected a list of entities"),
        ("[]", "it lists no entities"),
        ("- {id: a\n", "line 2"),
        ("organizations: [{domain: x}]", "organization 1: it has no name"),
        (
            "organizations: [{name: a}]\ncollaborations: [{name: c, participants: [b]}]",
            "there is no organization 'b'",
        ),
        (
            "organizations: [{name: a}]\ncollaborations: [{name: c, participants: [a, {name: a}]}]",
            "'c': the participant 'a' is named twice",
        ),
        (
            "organizations: [{name: a}]\ncollaborations: [{name: c, participants: [a]}, {name: d, participants: [a]}]",
            "'a' takes part in 'c' and in 'd'",
        ),
    ],
)
def test_a_wrong_list_of_entities_is_refused_with_its_place(folder: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        clients_of(write(folder, text))


def test_a_key_that_is_there_twice_is_no_reason_for_a_csv_file(folder: Path) -> None:
    with pytest.raises(DataError, match="line 1: duplicate key 'id'") as caught:
        clients_of(write(folder, "- {id: a, id: b}\n"))
    assert caught.value.hint is None


def test_a_wrong_csv_list_too_few_clients_and_two_kinds_of_data_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"e\.csv, line 3: 1 values for 2 columns"):
        clients_of(write(folder, "id,parent\na,\nb\n", "e.csv"))
    with pytest.raises(DataError, match=r"has 1 clients, but clients\.count is 3"):
        clients_of(write(folder, "- {id: a}\n"), count=3)
    with pytest.raises(DataError, match=r"'a' has data, and clients\.data splits a dataset"):
        clients_of(write(folder, "- {id: a, data: .}\n"), data=DataConfig(dataset="sklearn/iris"))
    with pytest.raises(DataError, match="the entities cannot be read: No such file"):
        clients_of(str(folder / "nothing.yaml"))


def test_a_file_that_has_changed_since_the_session_began_is_refused_with_both_digests(folder: Path) -> None:
    path = write(folder, YAML)
    before = digest_of(Path(path))
    read_entities(Path(path), sha256=before)
    write(folder, YAML + "- {id: phone-3}\n")
    with pytest.raises(DataError, match=f"has changed since the session began: its digest was sha256:{before} and is"):
        read_entities(Path(path), sha256=before)
