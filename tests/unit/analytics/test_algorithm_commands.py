"""``fedpkg algorithm``: what it prints, and its exit codes."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from analytics_runs import ALGORITHMS

from fedpkg.cli.main import run_command
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

PROBES = str(ALGORITHMS / "probes")


@pytest.fixture
def options(hospitals: Path, tmp_path: Path) -> list[str]:
    return [
        *("--nodes", str(hospitals / "entities.yaml"), "--database", f"default={hospitals}/data/*.csv"),
        *("--home", str(tmp_path / "home"), "executor.workers=2"),
    ]


def test_a_run_prints_its_result_alone_and_show_has_the_calls_of_each_organization(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", PROBES, "--method", "mean", "--arg", "column=age", "--arg", "fail_at=Hospital B", "--json"]
    assert run_command(["algorithm", *words, *options]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"mean": 40.0, "rows": 1, "answers": 2}
    assert "no result of Hospital B, task 1 (fails_at): exit_code: 'partial' exited with code 1" in err
    assert "files of the algorithm: result.json, sent.json in " in err
    home = ["--home", str(tmp_path / "home")]
    assert run_command(["session", "resume", *home]) == 0
    out = capsys.readouterr().out
    assert re.search(r"Look further:\n  fedpkg algorithm result probes-.* # what the function returned\n", out)
    assert run_command(["session", "show", *home]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'function    probes.mean(column="age", fail_at="Hospital B")' in lines
    assert any(line.startswith("result      fedpkg algorithm result probes-") for line in lines)
    start = next(number for number, line in enumerate(lines) if line.startswith("organization"))
    assert [line.split()[:4] for line in lines[start + 1 : start + 4]] == [
        ["Hospital", "B", "1", "1"],
        ["Hospital", "A", "1", "0"],
        ["Hospital", "C", "1", "0"],
    ]
    assert "ValueError: no age today" in lines[start + 1]
    assert run_command(["session", "show", "--json", *home]) == 0
    shown = json.loads(capsys.readouterr().out)["organizations"]
    assert (shown[0]["organization"], shown[0]["calls"], shown[0]["failed"]) == ("Hospital B", 1, 1)
    assert shown[0]["bytes_up"] == 0 < shown[1]["bytes_up"] and shown[1]["bytes_down"] > 0
    assert run_command(["algorithm", "result", *home]) == 0
    assert json.loads(capsys.readouterr().out)["mean"] == 40.0


def test_a_large_result_is_told_by_its_file(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpkg.cli.algorithm._LARGEST_BYTES", 1 << 20)
    assert run_command(["algorithm", "run", PROBES, "--method", "large", "--arg", "megabytes=2", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == Path(found["file"]).stat().st_size == (2 << 20) + 2


def test_options_of_the_command_line_reach_the_run(options: list[str], tmp_path: Path) -> None:
    words = ["--no-isolate", "--allow-pickle", "--most-tasks", "7", "--timeout", "90", "--host", "Hospital A"]
    more = ["--organizations", "Hospital C, Hospital A", "--arg", "column=age"]
    assert run_command(["algorithm", "run", PROBES, "--method", "mean", *words, *more, *options]) == 0
    with open_store(Home.open(tmp_path / "home"), read_only=True) as store:
        [session] = store.list_sessions()
    wanted = {"isolated": False, "allow_pickle": True, "most_tasks": 7, "host": "Hospital A"}
    wanted |= {"organizations": ["Hospital C", "Hospital A"], "arguments": {"column": "age"}}
    assert {name: session.config["strategy"][name] for name in wanted} == wanted
    assert session.config["executor"]["timeout_s"] == 90 and not session.config["isolate"]["enabled"]


def test_a_test_compares_the_mock_and_the_nodes_and_shows_what_left_each(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["algorithm", "test", PROBES, "--method", "mean", "--arg", "column=age", *options]) == 0
    out, err = capsys.readouterr()
    assert "the mock and the nodes agree" in out and out.count("same") == 3
    assert err.count("round 1") == 1  # of the nodes: the mock has no tasks
    assert '{"count": 1, "sum": 70.0}' in out
    words = ["test", PROBES, "--method", "differs", "--json"]
    assert run_command(["algorithm", *words, *options]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["same"] for one in found["sent"]] == [False] * 3
    assert found["mock"] != found["real"] and "result[0]" in found["differences"][0]


def test_functions_are_listed_and_their_source_inspected_without_running_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(["algorithm", "list", PROBES]) == 0
    out = capsys.readouterr().out
    assert "mean" in out and "column: str, fail_at: str = ''" in out and "probes/central.py:" in out
    assert run_command(["algorithm", "list", PROBES, "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed["mean"]["documentation"].startswith("The mean of a column over all organisations")
    assert listed["moments"]["kind"] == "partial" and listed["moments"]["arguments"][0]["name"] == "column"
    assert run_command(["algorithm", "inspect", PROBES, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"files", "variables"} <= {one["what"] for one in found["reads"]}
    assert run_command(["algorithm", "inspect", PROBES]) == 0
    assert "reads more than its data frame" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", PROBES, "--method", "mean"], 3, "mean needs column"),
        (["run", PROBES, "--method", "men"], 4, "did you mean 'mean'?"),
        (
            ["run", PROBES, "--method", "mean", "--arg", "column=age", "--host", "Hospital"],
            3,
            "no organization 'Hospital'; did",
        ),
        (["run", "nowhere", "--method", "mean"], 4, "nowhere does not exist"),
        (["run", PROBES, "--method", "mean", "--database", "default=x"], 2, "--database default is given twice"),
        (["run", PROBES], 2, "--method NAME'. probes has these functions:\n  deep        central  levels: int\n"),
        (["test", PROBES], 2, "  moments     partial  column\n"),
        (["result"], 7, "no"),
    ],
)
def test_wrong_words_are_errors(
    options: list[str], words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = options[4:6] if words[0] == "result" else options
    assert run_command(["algorithm", *words, *given]) == code
    assert message in capsys.readouterr().err
    assert logging.getLogger("fedpkg").handlers
