"""Federated algorithms as sessions: results, failures, isolation, and the same result after a kill."""

from __future__ import annotations

import json
import logging
import math
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from analytics_runs import ALGORITHMS, configured
from federation import Federation
from warm import warm_python

from fedpkg.cli.main import run_command
from fedpkg.config import dump_config
from fedpkg.errors import ConfigError, DataError, PackageError, SessionFailed
from fedpkg.session.algorithm_run import AlgorithmOptions, _differences, config_of_algorithm, result_of
from fedpkg.session.configuration import load

DRIVE = Path(__file__).resolve().parents[1] / "controller" / "drive.py"


def run(federation: Federation, hospitals: Path, method: str, *overrides: str, **options: Any) -> Any:
    """What the function returns."""
    row = federation.run(configured(hospitals, method, *overrides, **options))
    return result_of(federation.home, row)


def test_a_central_function_gets_the_results_of_all_organizations_and_the_data_of_its_host(
    federation: Federation, hospitals: Path
) -> None:
    found = run(federation, hospitals, "mean", arguments=["column=age"], host="Hospital C")
    assert found == {"mean": 45.0, "rows": 3, "answers": 3}
    [round_] = federation.store.list_rounds(federation.store.list_sessions()[0].session_id)
    assert (round_.num_ok, round_.num_failed) == (3, 0)


def test_organizations_keep_the_order_of_their_file_and_get_the_files_of_their_names(
    federation: Federation, hospitals: Path
) -> None:
    found = run(federation, hospitals, "moments", arguments=["column=age"])
    assert found == {
        "Hospital B": {"count": 1, "sum": 70.0},
        "Hospital A": {"count": 2, "sum": 110.0},
        "Hospital C": {"count": 3, "sum": 90.0},
    }


def test_names_of_organizations_in_any_script_lead_to_their_files(federation: Federation, hospitals: Path) -> None:
    for old, new in (("hospital-b", "東京_病院"), ("hospital-a", "大阪_病院"), ("hospital-c", "Łódź")):
        (hospitals / "data" / f"{old}.csv").rename(hospitals / "data" / f"{new}.csv")
    names = ("東京 病院", "大阪 病院", "łódź")
    (hospitals / "entities.yaml").write_text("".join(["organizations:\n", *(f"- {{name: {one}}}\n" for one in names)]))
    found = run(federation, hospitals, "moments", arguments=["column=age"])
    assert {name: one["sum"] for name, one in found.items()} == dict(zip(names, (70.0, 110.0, 90.0), strict=True))


def test_a_partial_function_that_fails_is_told_by_organization_and_its_result_is_left_out(
    federation: Federation, hospitals: Path
) -> None:
    found = run(federation, hospitals, "mean", arguments=["column=age", "fail_at=Hospital B"])
    assert found == {"mean": 40.0, "rows": 1, "answers": 2}  # as in production, without a word to the function
    [task] = federation.store.list_tasks(federation.store.list_sessions()[0].session_id, status="failed")
    assert (task.client_id, task.failure) == ("Hospital B", "exit_code")
    assert task.message is not None and task.message.endswith("s: ValueError: no age today")


def test_the_reason_of_a_failure_has_its_remedy_in_the_same_line(federation: Federation, hospitals: Path) -> None:
    (hospitals / "data" / "hospital-a.csv").write_text("age;weight\n30;70,5\n40;80\n")
    run(federation, hospitals, "mean", arguments=["column=age"])
    [task] = federation.store.list_tasks(federation.store.list_sessions()[0].session_id, status="failed")
    assert task.message is not None and task.message.endswith(
        "its values are separated by ';', not by ','; try: set the option separator of the database: separator: \";\""
    )


def test_an_error_of_the_central_function_names_the_partial_results_that_are_missing(
    federation: Federation, hospitals: Path
) -> None:
    with pytest.raises(SessionFailed) as error:
        run(federation, hospitals, "mean", arguments=["column=weight"])
    assert "mean raised an exception; partial results that are missing:" in error.value.message
    assert "Hospital A, task 1 (moments): exit_code: 'partial' exited with code 1" in error.value.message
    assert "KeyError: 'weight'" in error.value.message and "ZeroDivisionError" in error.value.message
    assert "; fedpkg: " not in error.value.message  # the reason is there once
    assert "\n    Traceback" in error.value.message and '\n      File "' in error.value.message
    assert "coordinator/starts" not in error.value.message  # paths are those of the algorithm
    assert "to change these, run the algorithm again" in (error.value.hint or "")


def test_a_resumed_run_has_the_data_and_partial_functions_of_its_beginning_and_the_mended_central_one(
    federation: Federation, hospitals: Path, tmp_path: Path
) -> None:
    folder, data = tmp_path / "algorithm", hospitals / "data" / "hospital-a.csv"
    folder.mkdir()
    old = (
        "from vantage6.algorithm.tools.decorators import algorithm_client, data\n\n\n"
        "@algorithm_client\ndef sums(client):\n"
        "    task = client.task.create({'method': 'ages'}, [1, 2, 3])\n"
        "    return sum(client.wait_for_results(task['id'])) / 0\n\n\n"
        "@data(1)\ndef ages(df):\n    return int(df['age'].sum())\n"
    )
    (folder / "sums.py").write_text(old)
    given = {"default": str(hospitals / "data/*.csv")}
    with pytest.raises(SessionFailed, match="ZeroDivisionError"):
        federation.run(config_of_algorithm(folder, AlgorithmOptions("sums", databases=given)))
    (folder / "sums.py").write_text(old.replace(" / 0", " + 1").replace("int(", "1000 + int("))
    data.unlink()
    data.write_text("age\n1000\n")
    row = federation.resume(federation.store.list_sessions()[0].session_id)
    assert result_of(federation.home, row) == 50 + 60 + 70 + 20 + 30 + 40 + 1


@pytest.mark.parametrize("executor", ["process", "forkserver"])
@pytest.mark.every_push("forkserver")
def test_an_isolated_algorithm_cannot_change_the_data_or_read_those_of_another_node(
    federation: Federation, hospitals: Path, executor: str
) -> None:
    words = [f"executor.name={executor}"]
    found = run(federation, hospitals, "append", *words)
    assert set(found.values()) <= {"PermissionError", "OSError"} and len(found) == 3
    files = sorted((hospitals / "data").iterdir())
    assert [path.read_text().count("\n") for path in files] == [3, 2, 4]
    session = federation.store.list_sessions()[0].session_id
    of_others = [federation.home.session_folder(session) / "nodes" / "2" / "default.csv", files[0]]
    for path in of_others:
        found = run(federation, hospitals, "look", *words, arguments=[f"path={path}"])
        readers = [name for name, said in found.items() if said.startswith("age")]
        assert readers == [], path


def test_an_isolated_central_function_has_the_data_of_its_host_alone_and_cannot_change_them(
    federation: Federation, hospitals: Path
) -> None:
    of_another = hospitals / "data" / "hospital-c.csv"
    found = run(federation, hospitals, "spy", arguments=[f"path={of_another}"])
    assert found[0] == 1 and set(found[1:]) <= {"FileNotFoundError", "PermissionError", "OSError"}
    assert (hospitals / "data" / "hospital-b.csv").read_text() == "age,stage\n70,0\n"


def test_an_algorithm_is_refused_where_it_cannot_be_isolated_unless_the_person_says_so(
    federation: Federation, hospitals: Path
) -> None:
    words = ["executor.name=resident"]
    with pytest.raises(ConfigError, match=r"resident.*cannot isolate"):
        run(federation, hospitals, "moments", *words, arguments=["column=age"])
    assert len(run(federation, hospitals, "moments", *words, arguments=["column=age"], isolated=False)) == 3


def test_an_algorithm_that_is_not_isolated_changes_a_copy_of_the_data(federation: Federation, hospitals: Path) -> None:
    found = run(federation, hospitals, "append", isolated=False)
    assert set(found.values()) == {"written"}
    assert [path.read_text().count("\n") for path in sorted((hospitals / "data").iterdir())] == [3, 2, 4]


def test_databases_of_all_types_are_read_by_isolated_tasks(federation: Federation, hospitals: Path) -> None:
    frame = pd.DataFrame({"x": [1]})
    frame.to_excel(hospitals / "a.xlsx", index=False)
    frame.to_csv(hospitals / "a.csv", index=False)
    shutil.copy(Path(__file__).parent / "parquet" / "plain.parquet", hospitals / "a.parquet")
    with closing(sqlite3.connect(hospitals / "a.db")) as connection:
        frame.to_sql("patients", connection)
    (hospitals / "scans").mkdir()
    (hospitals / "scans" / "1.png").write_text("")
    for name, more in (("a.csv", ""), ("a.xlsx", ""), ("a.parquet", ""), ("a.db", ", query: SELECT x FROM patients")):
        databases = f"[{{label: a, uri: {name}{more}}}, {{label: scans, uri: scans}}]"
        (hospitals / "node.yaml").write_text(f"databases: {databases}\n")
        given = {"nodes": "1", "databases": {}, "node_config": hospitals / "node.yaml"}
        [found] = run(federation, hospitals, "kinds", 'strategy.databases=["a","scans"]', **given).values()
        assert "x" in found[0] or (name.endswith("parquet") and found[0])
        assert found[1] == ["1.png"]


def test_pickles_are_exchanged_only_if_the_person_says_so_and_with_no_node_that_has_a_policy(
    federation: Federation, hospitals: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "algorithm"
    folder.mkdir()
    (folder / "fits.py").write_text(
        "class Model:\n    pass\n\n\n"
        "def master(client, data):\n"
        "    task = client.create_new_task({'method': 'fit'}, [1, 2, 3])\n"
        "    return [one.age for one in client.get_results(task['id'])]\n\n\n"
        "def RPC_fit(data):\n"
        "    model = Model()\n    model.age = int(data.age.sum())\n    return model\n"
    )
    given = {"nodes": str(hospitals / "entities.yaml"), "databases": {"default": str(hospitals / "data/*.csv")}}

    def fit(**options: Any) -> Any:
        config = config_of_algorithm(folder, AlgorithmOptions("master", **{**given, **options}))
        return result_of(federation.home, federation.run(config))

    with pytest.raises(SessionFailed, match=r"result of RPC_fit: it is of the type fits\.Model"):
        fit()
    assert fit(allow_pickle=True) == [70, 110, 90]
    (hospitals / "nodes").mkdir()
    (hospitals / "nodes" / "hospital-a.yaml").write_text("policies: {minimum_rows: 1}\n")
    with pytest.raises(SessionFailed) as error:
        fit(allow_pickle=True, node_config=hospitals / "nodes")
    assert "1 of 3 organizations have no result" in error.value.message and "Hospital A" in error.value.message
    assert "result of RPC_fit: it is of the type fits.Model" in error.value.message


def test_a_loop_that_polls_does_not_wait(federation: Federation, hospitals: Path) -> None:
    """1000 times a second of sleep; the test would not end in time."""
    assert run(federation, hospitals, "polls") == 3


def test_central_functions_are_nested_by_running_them_again(federation: Federation, hospitals: Path) -> None:
    found = run(federation, hospitals, "deep", arguments=["levels=3"])
    assert found == {"at": 1, "inner": {"at": 2, "inner": {"at": 3, "inner": {"at": 1, "count": 6}}}}
    tasks = federation.store.list_tasks(federation.store.list_sessions()[0].session_id)
    assert Counter(task.client_id for task in tasks) == {"Hospital B": 3, "Hospital A": 3, "Hospital C": 3}
    assert [task.round_number for task in tasks] == [1, 2, 3, 4, 4, 4, 5, 6, 7]


def test_tasks_deeper_than_allowed_end_as_failures(federation: Federation, hospitals: Path) -> None:
    with pytest.raises(SessionFailed, match="8 levels deep, the most that is allowed"):
        run(federation, hospitals, "deep", arguments=["levels=9"])


def test_a_function_that_creates_too_many_tasks_is_refused(federation: Federation, hospitals: Path) -> None:
    with pytest.raises(SessionFailed, match=r"more than 5 tasks; strategy\.most_tasks"):
        run(federation, hospitals, "stubborn", arguments=["tasks=10000"], most_tasks=5)
    assert run(federation, hospitals, "stubborn", arguments=["tasks=5"], most_tasks=5) == [1] * 5


def test_a_function_that_asks_for_more_than_ten_thousand_tasks_is_refused_before_one_runs(
    federation: Federation, hospitals: Path
) -> None:
    with pytest.raises(
        SessionFailed, match=r"more than 10000 tasks; strategy\.most_tasks \(--most-tasks\) is the limit"
    ):
        run(federation, hospitals, "stubborn", arguments=["tasks=10001"])
    assert federation.store.list_tasks(federation.store.list_sessions()[0].session_id) == []


def test_a_partial_function_that_never_ends_is_ended(federation: Federation, hospitals: Path) -> None:
    with pytest.raises(SessionFailed, match="no organization has a result of never_ends") as error:
        run(federation, hospitals, "never_ends", timeout_s=0.5)
    assert error.value.message.count("timeout: 'partial' was ended after its time limit of 0.5 s") == 3


def test_a_task_that_is_killed_leaves_nothing_among_temporary_files(
    federation: Federation, hospitals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with pytest.raises(SessionFailed):
        run(federation, hospitals, "never_ends", timeout_s=0.5, isolated=False)
    assert not [*(tmp_path / "temporary").rglob("fedpkg-task-*")]


def test_a_central_function_that_is_killed_leaves_nothing_among_temporary_files(
    federation: Federation, hospitals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with pytest.raises(SessionFailed, match="ended with signal"):
        run(federation, hospitals, "dies", isolated=False)
    assert not [*tmp_path.rglob("fedpkg-task-*")]


def test_an_organization_that_is_named_twice_in_a_task_is_an_error(federation: Federation, hospitals: Path) -> None:
    with pytest.raises(SessionFailed, match=r"organization 1 \(Hospital B\) is named twice in one task"):
        run(federation, hospitals, "twice")


def test_a_partial_function_that_is_not_there_fails_where_it_was_asked(federation: Federation, hospitals: Path) -> None:
    assert run(federation, hospitals, "unknown") == []
    tasks = federation.store.list_tasks(federation.store.list_sessions()[0].session_id)
    assert [task.failure for task in tasks] == ["exit_code"] * 3
    assert "has no function 'momens'; did you mean 'moments'?" in (tasks[0].message or "")


@pytest.mark.parametrize("is_isolated", [True, False])
def test_sets_of_words_have_one_order_in_central_functions_so_that_these_can_be_resumed(
    federation: Federation, hospitals: Path, is_isolated: bool
) -> None:
    words = [f"level {number}" for number in range(12)]
    found = run(federation, hospitals, "order", arguments=[f"words={json.dumps(words)}"], isolated=is_isolated)
    program = f"import json; print(json.dumps(list(set({words!r}))))"
    wanted = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": "0"}, capture_output=True, check=True
    )
    assert found == json.loads(wanted.stdout)


@pytest.mark.parametrize("kill_at", [4, 14])
def test_a_killed_run_goes_on_from_the_recorded_partial_results(
    federation: Federation, hospitals: Path, tmp_path: Path, kill_at: int
) -> None:
    """kill -9 in the first round, or between later ones; the function of four rounds returns the same."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dump_config(configured(hospitals, "many", arguments=["tasks=4"]))))
    words = [*warm_python(), str(DRIVE), str(federation.home.root), "--run", str(path), "--kill-at", str(kill_at)]
    assert subprocess.run(words).returncode == -9
    [killed] = federation.store.list_sessions()
    done = {task.task_id for task in federation.store.list_tasks(killed.session_id, status="ok")}
    finished = federation.store.count_rounds(killed.session_id, status="finished")
    assert (finished > 0) == (kill_at > 4)
    row = federation.resume(killed.session_id)
    assert result_of(federation.home, row) == [270.0, 271.0, 272.0, 273.0]
    tasks = federation.store.list_tasks(row.session_id, status="ok")
    assert done <= {task.task_id for task in tasks}
    assert len([task for task in tasks if task.round_number <= finished]) == 3 * finished  # none of these ran again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "mean needs column"),
        (["colum=age"], "mean has no such argument; did you mean 'column'?"),
        (["column=age", "column=stage"], "--arg column is given twice"),
        (["age"], "--arg age: it is not NAME=VALUE"),
    ],
)
def test_arguments_are_checked_before_anything_runs(hospitals: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        configured(hospitals, "mean", arguments=arguments)
    assert message in error.value.message
    if arguments != ["column=age", "column=stage"]:
        assert "mean(column: str, fail_at: str = '')" in (error.value.hint or "")


def test_a_method_that_is_not_there_is_told_with_those_that_are(hospitals: Path) -> None:
    with pytest.raises(PackageError, match="has no function 'meen'; did you mean 'mean'") as error:
        configured(hospitals, "meen")
    assert "never_ends" in (error.value.hint or "")


def test_each_node_needs_one_match_of_the_database(federation: Federation, hospitals: Path) -> None:
    data = hospitals / "data"
    with pytest.raises(DataError, match="matches 3 paths, and there are 2 nodes"):
        run(federation, hospitals, "moments", arguments=["column=age"], nodes="2")
    with pytest.raises(DataError, match="is one file, and there are 3 nodes"):
        run(federation, hospitals, "moments", arguments=["column=age"], databases={"default": f"{data}/hospital-a.csv"})
    with pytest.raises(DataError, match="the node client-0 has no database"):
        run(federation, hospitals, "moments", arguments=["column=age"], nodes="2", databases={})


def test_data_in_the_folder_of_the_algorithm_are_refused(federation: Federation, hospitals: Path) -> None:
    inside = ALGORITHMS / "probes"
    for database in (f"{inside}/*.py", f"sqlite:///{inside}/patients.db"):
        with pytest.raises(DataError, match="in the folder of the algorithm, of which each node gets a copy"):
            run(federation, hospitals, "polls", nodes="1", databases={"default": database})


def test_a_folder_that_contains_itself_is_refused(federation: Federation, hospitals: Path) -> None:
    (hospitals / "images" / "of 2026").mkdir(parents=True)
    (hospitals / "images" / "of 2026" / "all").symlink_to(hospitals / "images")
    with pytest.raises(DataError, match="of 2026/all is a link to a folder that it is in"):
        run(federation, hospitals, "polls", nodes="1", databases={"default": str(hospitals / "images")})


def test_a_link_in_a_folder_that_leads_nowhere_is_named(federation: Federation, hospitals: Path) -> None:
    (hospitals / "images").mkdir()
    (hospitals / "images" / "1.png").symlink_to(hospitals / "gone.png")
    with pytest.raises(DataError, match=r"images/1\.png is a link to .*gone\.png, which does not exist"):
        run(federation, hospitals, "polls", nodes="1", databases={"default": str(hospitals / "images")})


def test_a_file_that_is_no_database_although_one_of_its_files_is_beside_it_is_named(
    federation: Federation, hospitals: Path
) -> None:
    for name in ("a.db", "a.db-wal"):
        (hospitals / name).write_text("no database" * 100)
    with pytest.raises(DataError, match=r"database 'default' of client-0: .*a\.db cannot be read: file is not a data"):
        run(federation, hospitals, "polls", nodes="1", databases={"default": str(hospitals / "a.db")})


def test_databases_environment_and_ids_come_from_the_configurations_of_the_nodes(
    federation: Federation, hospitals: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = hospitals / "nodes"
    folder.mkdir()
    for letter in "abc":
        databases = (
            f"[{{label: patients, uri: ../data/hospital-{letter}.csv, type: csv}}, {{label: extra, uri: e.csv}}]"
        )
        text = f"databases: {databases}\nalgorithm_env: {{LETTER: {letter}}}\nport: 5000\n"
        (folder / f"hospital_{letter}.yaml").write_text(text)
        (folder / "e.csv").write_text("x\n1\n")
    given = {"databases": {}, "node_config": folder}
    (folder / "v6server.yaml").write_text("description: A study\nlogging: {level: debug}\nsmtp: {}\n")
    found = run(federation, hospitals, "both", **given)
    assert [text for text in caplog.messages if text.startswith("nodes.")] == [
        "nodes.ignored keys=port, smtp",
        "nodes.server about=A study level=DEBUG",
    ]
    assert found == {"Hospital B": ["b", 1, 1], "Hospital A": ["a", 2, 1], "Hospital C": ["c", 3, 1]}
    other = {"extra": str(hospitals / "data/*.csv"), "patients": str(folder / "e.csv")}
    with pytest.raises(DataError, match="is one file"):
        run(federation, hospitals, "both", **{**given, "databases": other})


def test_databases_are_given_in_the_order_of_the_command_line(federation: Federation, hospitals: Path) -> None:
    (hospitals / "more").mkdir()
    for letter in "abc":
        (hospitals / "more" / f"Hospital_{letter.upper()}.csv").write_text("x\n1\n2\n")
    labels = {"second": str(hospitals / "more/*.csv"), "first": str(hospitals / "data/*.csv")}
    found = run(federation, hospitals, "both", databases=labels)
    assert found["Hospital C"] == [None, 2, 3]


def test_databases_of_any_labels_are_files_of_their_own_and_the_originals_stay(
    federation: Federation, hospitals: Path
) -> None:
    (hospitals / "more").mkdir()
    for letter in "ABC":
        (hospitals / "more" / f"Hospital_{letter}.json").write_text("x\n1\n2\n")
    places = {"node": "more/*.json", "a b": "data/*.csv", "a_b": "more/*.json"}
    labels = {label: str(hospitals / place) for label, place in places.items()}
    first = [
        run(federation, hospitals, "both", databases={label: labels[label] for label in pair})
        for pair in (("node", "a b"), ("a b", "a_b"))
    ]
    assert [one["Hospital C"][1:] for one in first] == [[2, 3], [3, 2]]
    assert (hospitals / "more" / "Hospital_A.json").read_text() == "x\n1\n2\n"


def test_a_run_yaml_runs_an_algorithm_isolated_unless_it_says_otherwise(
    federation: Federation, hospitals: Path
) -> None:
    lines = [
        f"package: {ALGORITHMS / 'probes'}",
        "rounds: null",
        "clients: {entities: entities.yaml, databases: {default: data/*.csv}}",
        "strategy: {name: algorithm, method: mean, arguments: {column: age}}",
        "executor: {workers: 2}",
    ]
    (hospitals / "run.yaml").write_text("\n".join(lines))
    config = load(hospitals / "run.yaml").config
    assert config.isolate.enabled and config.strategy["module"] == "probes" and config.strategy["kind"] == "central"
    assert not load(hospitals / "run.yaml", ["strategy.isolated=false"]).config.isolate.enabled
    row = federation.run(config)
    assert result_of(federation.home, row) == {"mean": 45.0, "rows": 1, "answers": 3}
    again = federation.run(load(hospitals / "run.yaml", [f"replay={row.session_id}"]).config)
    assert result_of(federation.home, again) == result_of(federation.home, row)
    with pytest.raises(ConfigError, match=r"'algorithm' needs the function to call: strategy\.method"):
        load(hospitals / "run.yaml", ["strategy.method=null"])
    with pytest.raises(ConfigError, match=r"line 3: 'clients\.databases' is for the strategy 'algorithm' only"):
        load(hospitals / "run.yaml", ["strategy={name: fedavg}", "rounds=1"])


def test_a_result_that_is_too_large_is_a_failure_of_its_organization(federation: Federation, hospitals: Path) -> None:
    found = run(federation, hospitals, "big", "limits.reply_bytes=1000000", arguments=["megabytes=2"])
    assert found == {"Hospital B": "x"}
    tasks = federation.store.list_tasks(federation.store.list_sessions()[0].session_id, status="failed")
    assert [task.failure for task in tasks] == ["too_big"] * 2
    assert all("at most 1000000 are accepted (limits.reply_bytes)" in (task.message or "") for task in tasks)
    assert len(run(federation, hospitals, "big", arguments=["megabytes=2"])["Hospital A"]) == 2 << 20


def test_a_result_of_the_central_function_that_cannot_be_written_is_an_error_that_names_the_limit(
    federation: Federation, hospitals: Path
) -> None:
    with pytest.raises(SessionFailed, match=r"result of large, 2097154 bytes, cannot be written: .*limits\.file_bytes"):
        run(federation, hospitals, "large", "limits.file_bytes=2000000", arguments=["megabytes=2"])
    assert len(run(federation, hospitals, "large", arguments=["megabytes=2"])) == 2 << 20


def test_what_differs_between_two_results_is_told_with_its_place_and_shape() -> None:
    mock = {"mean": [1.0, math.nan], "n": 1, "rows": [1, 2], "by": {"a": 1}}
    assert list(_differences(mock, json.loads(json.dumps(mock)))) == []
    real = {"mean": [1.5, math.nan], "n": 1.0, "rows": [1], "by": {"b": 1}}
    assert list(_differences(mock, real)) == [
        "['mean'][0]: the mock has 1.0, the nodes 1.5",
        "['n']: the mock has 1, the nodes 1.0",
        "['rows']: the mock has a list of 2, the nodes a list of 1",
        "['by']: the mock has a mapping with 'a', the nodes a mapping with 'b'",
    ]


def test_only_the_named_organizations_take_part_and_the_first_is_the_host(
    federation: Federation, hospitals: Path
) -> None:
    named = ["Hospital C", "Hospital A"]
    found = run(federation, hospitals, "mean", arguments=["column=age"], organizations=named)
    assert found == {"mean": 40.0, "rows": 3, "answers": 2}


def test_an_organization_that_is_named_twice_on_the_command_line_is_an_error(
    federation: Federation, hospitals: Path
) -> None:
    named = ["Hospital C", "Hospital A", "Hospital C"]
    with pytest.raises(ConfigError, match=r"strategy\.organizations: 'Hospital C' is named twice"):
        run(federation, hospitals, "mean", arguments=["column=age"], organizations=named)


def test_a_failed_call_can_be_repeated_by_hand(federation: Federation, hospitals: Path, tmp_path: Path) -> None:
    row = federation.run(configured(hospitals, "mean", arguments=["column=age", "fail_at=Hospital C"]))
    [task] = federation.store.list_tasks(row.session_id, status="failed")
    words = ["package", "call", str(ALGORITHMS / "probes"), "partial", "--isolate"]
    assert run_command([*words, "--task", str(federation.home.root / str(task.folder))]) == 8


@pytest.mark.parametrize("is_open", [False, True])
def test_an_sqlite_database_of_a_node_is_read_by_isolated_tasks_also_while_it_is_in_use(
    federation: Federation, hospitals: Path, is_open: bool
) -> None:
    path = hospitals / "patients.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=wal" if is_open else "PRAGMA journal_mode=delete")
        connection.execute("CREATE TABLE patients (age)")
        connection.execute("INSERT INTO patients VALUES (40), (50)")
        query = "SELECT age FROM patients"
        database = f"{{label: default, uri: 'sqlite:///{path}', type: sql, query: {query}}}"
        (hospitals / "nodes").mkdir()
        (hospitals / "nodes" / "client-0.yaml").write_text(f"databases: [{database}]\n")
        given = {"nodes": "1", "databases": {}, "node_config": hospitals / "nodes", "arguments": ["column=age"]}
        assert path.with_name("patients.db-wal").exists() == is_open
        assert run(federation, hospitals, "moments", **given) == {"client-0": {"count": 2, "sum": 90.0}}


def test_a_database_on_a_server_needs_the_network(federation: Federation, hospitals: Path) -> None:
    with pytest.raises(ConfigError, match="is on a server, and isolated tasks have no network"):
        given = {"arguments": ["column=age"], "databases": {"default": "postgresql://db.example.org/patients"}}
        run(federation, hospitals, "moments", **given)


def test_a_password_is_not_stored_with_the_configuration(federation: Federation, hospitals: Path) -> None:
    for url in ("postgresql://me:geheim@h/x", "postgresql://h/x?user=me&password=geheim"):
        with pytest.raises(DataError, match="the address has a password, which would be stored") as error:
            run(federation, hospitals, "mean", databases={"default": url}, arguments=["column=age"])
        assert "geheim" not in str(error.value)
    with pytest.raises(DataError, match="the address of the database is wrong: Invalid IPv6 URL"):
        run(federation, hospitals, "mean", databases={"default": "postgresql://[h/x"}, arguments=["column=age"])
