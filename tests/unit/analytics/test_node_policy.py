"""Policies of nodes in sessions, against algorithms that try to get round them."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from analytics_runs import ALGORITHMS
from federation import Federation
from msgspec.structs import replace

from fedpkg.analytics.node import read_node
from fedpkg.cli.report import task_failure_lines
from fedpkg.compute_package.signing import add_signature, make_key, read_private_key, sign, signature_path
from fedpkg.config import RunConfig
from fedpkg.errors import ConfigError, DataError, DispatchError, SessionFailed
from fedpkg.session.algorithm_run import AlgorithmOptions, config_of_algorithm, result_of
from fedpkg.session.by_hand import Call, call_entry_point
from fedpkg.stores.base import SessionRow

NAMES = ("north", "south", "west")
NOSY = ALGORITHMS / "nosy"


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    """A folder with the data of three nodes, their configurations in ``nodes``, and entities.yaml."""
    folder = tmp_path / "Knoten ü"
    (folder / "nodes").mkdir(parents=True)
    for position, name in enumerate(NAMES):
        numbers = range(12 - 4 * position)  # 12, 8 and 4 patients
        rows = "".join(f"Patient-{position}{n:03},{40 + n},{'I' if n else 'II'}\n" for n in numbers)
        (folder / f"{name}.csv").write_text(f"name,age,stage\n{rows}")
    (folder / "entities.yaml").write_text("".join(f"- {{id: {name}}}\n" for name in NAMES))
    for name in NAMES:
        configure(folder, name)
    return folder


def configure(folder: Path, name: str, policy: str = "", *more: str) -> None:
    lines = [f"databases: {{default: ../{name}.csv}}", f"policies: {{{policy}}}" if policy else "", *more]
    (folder / "nodes" / f"{name}.yaml").write_text("\n".join(lines))


def config_of(nodes: Path, method: str, *overrides: str, package: Path = NOSY, **options: Any) -> RunConfig:
    given: dict[str, Any] = {"nodes": str(nodes / "entities.yaml"), "node_config": nodes / "nodes", **options}
    config = config_of_algorithm(package, AlgorithmOptions(method, **given), overrides)
    return replace(config, executor=replace(config.executor, workers=2))


def call(federation: Federation, nodes: Path, method: str, *, number: int = 3, **arguments: Any) -> Any:
    """What `central` says about a call of a partial function at some organizations."""
    words = [f"method={method}", f"arguments={json.dumps(arguments)}", f"number={number}"]
    return result_of(federation.home, federation.run(config_of(nodes, "central", arguments=words)))


def last(federation: Federation) -> SessionRow:
    return federation.store.list_sessions()[-1]


def refusals(federation: Federation) -> dict[str, str]:
    """Why tasks of the last session were refused, by client."""
    tasks = federation.store.list_tasks(last(federation).session_id, status="failed")
    assert {task.failure for task in tasks} <= {"not_allowed"}
    return {task.client_id: str(task.message) for task in tasks}


@pytest.mark.parametrize("executor", ["process", "forkserver"])
@pytest.mark.every_push("process")
def test_a_hidden_column_is_found_by_no_way(federation: Federation, nodes: Path, executor: str) -> None:
    for name in ("north", "south"):
        configure(nodes, name, "allowed_columns: [age, stage]")
    words = [f"original={nodes / 'north.csv'}"]
    row = federation.run(config_of(nodes, "look_around", f"executor.name={executor}", arguments=words))
    results = result_of(federation.home, row)
    without = results.pop("west")  # a node without a policy: each way leads to the column
    assert without["regex"] == ["name"] and without["files"] == [4, 0] and without["memory"] > 0
    assert without["eval"] == ["Patient-2000", "Patient-2001", "Patient-2002", "Patient-2003"]
    for found in results.values():
        assert found["columns"] == ["age", "stage"] and found["regex"] == []
        assert found["index"] == "IndexError" and found["eval"] == "KeyError"
        assert found["query"] == "UndefinedVariableError" and found["behind"] <= 2
        assert found["files"] == [0, 0] and found["original"] in ("FileNotFoundError", "PermissionError")
        assert found["memory"] == 0
        assert found["memory of the runner"] == found["environment of the runner"] == "PermissionError"


def test_a_reply_is_what_the_function_returned_whatever_it_has_forged(federation: Federation, nodes: Path) -> None:
    for name in NAMES:
        configure(nodes, name, "minimum_rows: 1")
    row = federation.run(config_of(nodes, "forge"))
    assert result_of(federation.home, row) == dict.fromkeys(NAMES, "true")


def test_small_counts_are_suppressed_by_a_process_that_the_algorithm_does_not_reach(
    federation: Federation, nodes: Path
) -> None:
    for name in NAMES:
        configure(nodes, name, "minimum_count: 5")
    assert result_of(federation.home, federation.run(config_of(nodes, "tamper"))) == {
        "north": {"n": 12, "by stage": {"I": 11, "II": None}},
        "south": {"n": 8, "by stage": {"I": 7, "II": None}},
        "west": {"n": None, "by stage": {"I": None, "II": None}},
    }


def test_modules_of_the_algorithm_do_not_run_in_the_process_that_checks(
    federation: Federation, nodes: Path, tmp_path: Path
) -> None:
    package = tmp_path / "nosy"
    shutil.copytree(NOSY, package)
    for name in ("_fedpkg_algorithm_node", "pandas"):  # which the runner imports
        (package / f"{name}.py").write_text("raise SystemExit('in place of the runner')\n")
    for name in NAMES:
        configure(nodes, name, "minimum_count: 5, minimum_rows: 5")
    for executor in ("process", "forkserver"):
        config = config_of(nodes, "tamper", f"executor.name={executor}", package=package)
        found = result_of(federation.home, federation.run(config))
        assert found["north"] == {"n": 12, "by stage": {"I": 11, "II": None}} and "west" not in found


def test_one_node_refuses_and_the_others_answer(federation: Federation, nodes: Path) -> None:
    configure(nodes, "west", "minimum_rows: 5")
    found = call(federation, nodes, "tamper")
    assert found["statuses"] == ["completed", "completed", "not allowed"]
    assert [one["n"] for one in found["results"]] == [12, 8]
    [message] = refusals(federation).values()
    assert "minimum_rows: it keeps database 'default' from all algorithms" in message and "4" not in message


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("allowed_functions: [look_around]", "allowed_functions: tamper is not in the list"),
        ("allowed_functions: {tamper: {arguments: [df]}}", ""),
        ("allowed_algorithms: ['nos']", r"allowed_algorithms: nosy (sha256:"),
        ("allowed_algorithms: ['nos.']", ""),
        ("allowed_organizations: [south]", "allowed_organizations: north is not in the list"),
        ("allowed_organizations: [north]", ""),
        ("minimum_organizations: 3", "minimum_organizations: tamper was asked of 2 organizations"),
        ("minimum_organizations: 2", ""),
        ("maximum_calls: 0", "maximum_calls: tamper was called 0 times"),
    ],
)
def test_each_rule_refuses_the_call_at_its_node(federation: Federation, nodes: Path, policy: str, why: str) -> None:
    configure(nodes, "south", policy)
    found = call(federation, nodes, "tamper", number=2)
    assert found["statuses"] == ["completed", "not allowed" if why else "completed"]
    assert why in refusals(federation).get("south", "") and set(refusals(federation)) == ({"south"} if why else set())


def test_an_algorithm_is_allowed_by_its_digest_or_its_signer_until_it_changes(
    federation: Federation, nodes: Path, tmp_path: Path
) -> None:
    package = tmp_path / "nosy"
    shutil.copytree(NOSY, package)
    digest = federation.run(config_of(nodes, "tamper", package=package)).package_digest
    signer = make_key(tmp_path / "key")
    key = read_private_key(tmp_path / "key", passphrase=lambda: "")
    add_signature(signature_path(package), digest, sign(digest, key))
    configure(nodes, "north", f"allowed_algorithms: ['sha256:{digest}']")
    configure(nodes, "south", f"allowed_algorithms: ['{signer}']")
    configure(nodes, "west", f"allowed_algorithms: ['nosy@sha256:{digest}']")
    row = federation.run(config_of(nodes, "tamper", package=package))
    assert set(result_of(federation.home, row)) == set(NAMES)
    with (package / "nosy" / "__init__.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(SessionFailed, match="allowed_algorithms"):
        federation.run(config_of(nodes, "tamper", package=package))
    assert set(refusals(federation)) == set(NAMES)


def test_a_call_by_hand_does_not_go_round_a_policy(federation: Federation, nodes: Path, tmp_path: Path) -> None:
    configure(nodes, "north", "maximum_calls: 1")
    row = federation.run(config_of(nodes, "tamper"))
    [north] = [one for one in federation.store.list_clients(row.session_id) if one.client_id == "north"]
    folder = federation.home.root / str(north.data_path)
    with pytest.raises(DispatchError, match="the node has a policy, which a call by hand does not keep"):
        call_entry_point(Call(NOSY, "partial", tmp_path / "by hand", data_path=folder))
    call(federation, nodes, "fail", number=2)
    failed = federation.store.list_tasks(last(federation).session_id, status="failed")
    hints = {one.client_id: "\n".join(task_failure_lines(federation.home, last(federation), one)) for one in failed}
    assert "the first patient is" in hints["north"] and "package call" not in hints["north"]
    assert "fedpkg package call" in hints["south"]


def test_a_path_of_windows_in_a_configuration_is_said_to_be_one(federation: Federation, nodes: Path) -> None:
    (nodes / "nodes" / "north.yaml").write_text(r"databases: {default: C:\Users\me\data.csv}")
    with pytest.raises(DataError, match=r"database 'default' of north: C:\\Users\\me\\data.csv is a Windows path"):
        federation.run(config_of(nodes, "tamper"))
    data = {"databases": {"default": str(nodes / "{client_id}.csv")}}
    row = federation.run(config_of(nodes, "tamper", **data))
    assert result_of(federation.home, row)["north"]["n"] == 12


def test_the_frame_of_a_central_function_is_without_hidden_columns(federation: Federation, nodes: Path) -> None:
    configure(nodes, "north", "forbidden_columns: [name]")
    assert result_of(federation.home, federation.run(config_of(nodes, "own_columns"))) == ["age", "stage"]


def test_calls_are_counted_over_sessions_and_failures(federation: Federation, nodes: Path) -> None:
    configure(nodes, "south", "maximum_calls: 2")
    assert call(federation, nodes, "fail", number=2)["statuses"] == ["failed", "failed"]
    assert call(federation, nodes, "tamper", number=2)["statuses"] == ["completed", "completed"]
    assert call(federation, nodes, "fail", number=2)["statuses"] == ["failed", "failed"]
    assert call(federation, nodes, "fail", number=2)["statuses"] == ["failed", "not allowed"]
    assert call(federation, nodes, "tamper", number=2)["statuses"] == ["completed", "completed"]


def test_a_refusal_at_the_host_of_a_central_function_ends_the_session(federation: Federation, nodes: Path) -> None:
    configure(nodes, "north", "allowed_functions: [tamper]")
    with pytest.raises(
        SessionFailed, match="not_allowed: north, central: the node's policy does not allow it: allowed_functions"
    ):
        call(federation, nodes, "tamper")


def test_a_quiet_node_tells_neither_output_nor_texts_of_exceptions(federation: Federation, nodes: Path) -> None:
    configure(nodes, "north", "", "share_algorithm_logs: false")
    assert call(federation, nodes, "fail", number=2)["statuses"] == ["failed", "failed"]
    tasks = federation.store.list_tasks(last(federation).session_id, status="failed")
    said = {task.client_id: f"{task.message}" for task in tasks}
    assert "the first patient is 40 years old" in said["south"]
    assert "ValueError" in said["north"] and "patient" not in said["north"]
    logs = [path.read_text() for path in federation.home.root.rglob("north/partial/*.log")]
    assert len(logs) == 2 and not any("patient" in log for log in logs)


def test_a_quiet_host_tells_neither_output_nor_texts_of_its_central_function(
    federation: Federation, nodes: Path
) -> None:
    configure(nodes, "north", "", "share_algorithm_logs: false")
    with pytest.raises(
        SessionFailed, match="own_failure raised an exception\n    ValueError; north does not share its text"
    ):
        federation.run(config_of(nodes, "own_failure"))
    told = [path.read_bytes() for path in (federation.home.root / "sessions").rglob("*.log")]
    assert told and not any(b"first patient is" in one for one in told)


def test_a_policy_limits_the_time_of_its_node(federation: Federation, nodes: Path) -> None:
    configure(nodes, "north", "wall_time_s: 3")
    assert call(federation, nodes, "never_ends", number=1)["statuses"] == ["not allowed"]
    assert "wall_time_s: the call took more than 3 s" in refusals(federation)["north"]


def test_a_policy_limits_the_memory_of_its_node(federation: Federation, nodes: Path) -> None:
    configure(nodes, "north", "memory_bytes: 600000000")
    assert call(federation, nodes, "fills_memory", number=1, megabytes=900)["statuses"] == ["not allowed"]
    assert "memory_bytes: the call used more than 600000000 bytes" in refusals(federation)["north"]
    assert call(federation, nodes, "total_age", number=1)["statuses"] == ["completed"]


def test_a_policy_limits_the_memory_of_a_central_function_at_its_node(federation: Federation, nodes: Path) -> None:
    configure(nodes, "north", "memory_bytes: 600000000")
    configure(nodes, "south", "memory_bytes: 1000")
    with pytest.raises(SessionFailed, match="in use; memory_bytes in the policy of its node is 600000000"):
        federation.run(config_of(nodes, "own_memory", arguments=["megabytes=900"]))


def test_a_limit_of_the_run_that_is_lower_is_not_the_policy_s(federation: Federation, nodes: Path) -> None:
    configure(nodes, "north", "wall_time_s: 60")
    config = config_of(nodes, "never_ends", timeout_s=0.5, organizations=["north"])
    with pytest.raises(SessionFailed, match=r"timeout: 'partial' was ended after its time limit of 0\.5 s"):
        federation.run(config)


def test_results_of_too_few_organizations_are_not_given_to_the_central_function(
    federation: Federation, nodes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    configure(nodes, "north", "minimum_organizations: 3")
    configure(nodes, "south", "minimum_organizations: 2")
    found = call(federation, nodes, "rows_but", rows=4)  # which is not the number of any two
    assert found == {"results": [], "statuses": ["not allowed", "not allowed", "failed"]}
    why = "minimum_organizations: rows_but has results of 2 organizations, and must have of 3 or more"
    assert (
        f"no result of north, task 1 (rows_but): not_allowed: the node's policy does not allow it: {why}" in caplog.text
    )
    configure(nodes, "north", "minimum_organizations: 2")
    assert call(federation, nodes, "rows_but", rows=4)["results"] == [12, 8]


def test_results_of_too_few_organizations_are_not_given_to_a_function_at_an_organization_either(
    federation: Federation, nodes: Path
) -> None:
    configure(nodes, "south", "minimum_organizations: 3")
    inner = json.dumps({"method": "rows_but", "arguments": {"rows": 4}, "number": 3})
    words = ["method=central", f"arguments={inner}", "number=1"]
    [found] = result_of(federation.home, federation.run(config_of(nodes, "central", arguments=words)))["results"]
    assert found == {"results": [12], "statuses": ["completed", "not allowed", "failed"]}


def test_a_function_that_is_run_by_itself_is_asked_of_one_organization_as_nothing_is_aggregated(
    federation: Federation, nodes: Path
) -> None:
    configure(nodes, "north", "minimum_organizations: 2")
    assert list(result_of(federation.home, federation.run(config_of(nodes, "tamper")))) == ["south", "west"]
    [message] = refusals(federation).values()
    assert "minimum_organizations: tamper was asked of 1 organization, and must be of 2 or more" in message
    with pytest.raises(ConfigError, match="no central function tamper of the contract v4"):
        federation.run(config_of(nodes, "tamper", "strategy.kind=central"))


def test_tasks_of_a_function_at_another_organization_come_from_that_one(federation: Federation, nodes: Path) -> None:
    configure(nodes, "west", "allowed_organizations: [north]")
    inner = json.dumps({"method": "tamper", "arguments": {}, "number": 3})
    words = ["method=central", f"arguments={inner}", "number=2"]
    found = result_of(federation.home, federation.run(config_of(nodes, "central", arguments=words)))["results"]
    assert [one["statuses"][2] for one in found] == ["completed", "not allowed"]
    [message] = refusals(federation).values()
    assert "allowed_organizations: south is not in the list" in message


def test_a_rule_for_a_database_that_the_node_lacks_is_an_error(federation: Federation, nodes: Path) -> None:
    for rule in (
        "minimum_rows: {defualt: 10}",
        "allowed_columns: {defualt: [age]}",
        "forbidden_columns: {defualt: [a]}",
    ):
        configure(nodes, "north", rule)
        with pytest.raises(ConfigError, match="the node north has no database 'defualt'; did you mean 'default'"):
            federation.run(config_of(nodes, "tamper"))


def test_a_session_goes_on_with_the_central_function_that_the_nodes_have_admitted(
    federation: Federation, nodes: Path, tmp_path: Path
) -> None:
    package = tmp_path / "nosy"
    shutil.copytree(NOSY, package)
    file = package / "nosy" / "__init__.py"
    for policy, is_changed in (("minimum_rows: 1", False), ("", True)):
        configure(nodes, "north", policy)
        with pytest.raises(SessionFailed, match="ValueError: the first patient is Patient-0000"):
            federation.run(config_of(nodes, "own_failure", package=package))
        source = file.read_text()
        file.write_text(source.replace('raise ValueError(f"the first', 'raise KeyError(f"the first'))
        with pytest.raises(SessionFailed, match="KeyError" if is_changed else "ValueError"):
            federation.resume(last(federation).session_id)
        file.write_text(source)


def test_what_a_database_warns_of_reaches_the_person_who_runs_the_algorithm(
    federation: Federation, nodes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in NAMES:
        with (nodes / f"{name}.csv").open("a") as file:
            file.write("Patient-9999,unknown,I\n")
    configure(nodes, "north", "minimum_rows: 5")
    configure(nodes, "south", "minimum_rows: 5", "share_algorithm_logs: false")
    for method in ("rows_but", "rows_but"):
        found = call(federation, nodes, method, rows=1)
        assert found["results"] == [13, 9, 5]
    for name, times in (("north", 2), ("south", 0), ("west", 2)):
        text = f"warning of {name}: database 'default' of {name}: column 'age' has texts among numbers"
        assert caplog.text.count(text) == times, name
    found = call(federation, nodes, "total_age")
    assert found["results"] == []
    failed = {one.client_id: str(one.message) for one in federation.store.list_tasks(last(federation).session_id)}
    for name in ("north", "west"):
        assert "Error" in failed[name] and "; warning: database 'default' of " in failed[name], name
    assert "texts among numbers" not in failed["south"]


def test_errors_about_a_database_name_the_person_s_own_file(federation: Federation, nodes: Path) -> None:
    for name in NAMES:
        (nodes / f"{name}.csv").write_text("name;age\na;1\n")
    configure(nodes, "north", "minimum_organizations: 1")
    configure(nodes, "south", "", "share_algorithm_logs: false")
    assert call(federation, nodes, "rows_but", rows=1)["results"] == []
    failed = {one.client_id: str(one.message) for one in federation.store.list_tasks(last(federation).session_id)}
    for name in ("north", "west"):
        assert f"database 'default' of {name}: {nodes}/{name}.csv has one column" in failed[name]
    assert ".csv" not in failed["south"]
    places = federation.home.session_folder(last(federation).session_id) / "nodes"
    sources = [read_node(str(places / number)).databases["default"].source for number in "123"]
    assert sources == [str(nodes / "north.csv"), "", str(nodes / "west.csv")]


def test_a_run_that_would_go_round_a_policy_is_refused(federation: Federation, nodes: Path) -> None:
    configure(nodes, "north", "minimum_rows: 1")
    with pytest.raises(ConfigError, match="the policy of north wants algorithms isolated"):
        federation.run(config_of(nodes, "tamper", isolated=False))
    with pytest.raises(ConfigError, match="the node north has a policy, and a mock"):
        federation.run(config_of(nodes, "tamper", in_process=True))
    configure(nodes, "south", "", "share_algorithm_logs: false")
    configure(nodes, "north")
    with pytest.raises(ConfigError, match="the node south shares no logs, and a mock"):
        federation.run(config_of(nodes, "tamper", in_process=True))
    configure(nodes, "north", "minimum_rows: 1")
    with pytest.raises(ConfigError, match="lets the algorithm bring the interpreter"):
        federation.run(config_of(nodes, "tamper", "python_env=auto"))
    for word in ("isolate.network=true", f"isolate.read=[{nodes}]"):
        with pytest.raises(ConfigError, match=f"wants algorithms isolated, and {word.partition('=')[0]} makes an exc"):
            federation.run(config_of(nodes, "tamper", word))
    configure(nodes, "north", "minimum_rows: 1, isolated: false")
    assert set(result_of(federation.home, federation.run(config_of(nodes, "tamper", isolated=False)))) == set(NAMES)


@pytest.mark.parametrize("keeps", ["has a policy", "shares no logs"])
def test_a_run_that_would_replace_the_program_that_keeps_a_policy_is_refused(
    federation: Federation, nodes: Path, tmp_path: Path, keeps: str
) -> None:
    configure(nodes, "north", *(("minimum_rows: 1",) if "policy" in keeps else ("", "share_algorithm_logs: false")))
    package = tmp_path / "nosy"
    shutil.copytree(NOSY, package)
    for word, why in (
        ("environment={PYTHONPATH: .}", r"variables of the run \(PYTHONPATH\)"),
        (f"strategy.folder={NOSY}", "strategy.folder is not the package"),
    ):
        with pytest.raises(ConfigError, match=f"the node north {keeps}, and {why}"):
            federation.run(config_of(nodes, "tamper", word, package=package))
    for more in ("startup: {command: python own.py}", "", "partial: {command: python own.py}"):
        command = "python -m _fedpkg_algorithm_node nosy"
        lines = ["entry_points:", f"  partial: {{command: {command}}}", f"  {more}"]
        (package / "fedn.yaml").write_text("\n".join(lines[:1] + lines[2:] if more.startswith("p") else lines))
        if not more:
            assert len(result_of(federation.home, federation.run(config_of(nodes, "tamper", package=package)))) == 3
            continue
        with pytest.raises(ConfigError, match=f"the node north {keeps}, and the fedn.yaml of the algorithm has comm"):
            federation.run(config_of(nodes, "tamper", package=package))
