"""`fedpkg session export`: everything of a session in a folder of plain files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedpkg.reporting.export import csv_text, json_lines
from fedpkg.reporting.measures import measured
from fedpkg.reporting.provenance import STARTS
from fedpkg.stores.opening import open_store
from tests.unit.cli.cli_support import fedpkg
from tests.unit.reporting.written import write_session

NAMES = [
    "clients.jsonl", "config.yaml", "failures.jsonl", "logs", "metric_rows.csv", "metric_rows.jsonl",
    "models", "models.jsonl", "report.html", "rounds.csv", "session.json", STARTS, "uncommitted-1.diff",
    "validations.jsonl",
]  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_an_export_has_configuration_versions_changes_metrics_logs_models_and_the_report(tmp_path: Path) -> None:
    home = write_session(tmp_path / "home", has_files=True, config={"environment": {"API_TOKEN": "hf_secret"}})
    folder = home.session_folder("digits-1")
    git = {"commit": "c0ffee", "changed": 1, "changes": "uncommitted-1.diff"}
    (folder / STARTS).write_text(json.dumps([{"at": 1.0, "versions": {"python": "3.99"}, "git": git}]))
    (folder / "uncommitted-1.diff").write_text("+lr = 2")
    for name in ("saved/final model.pt", "saved/plots/ü.svg", "starts/1/stdout.log", "starts/1/work/secret.py"):
        (folder / "coordinator" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "coordinator" / name).write_text(name)
    (folder / "coordinator" / "saved" / "link").symlink_to("/etc/passwd")
    target = tmp_path / "ein Ordner" / "out"
    done = fedpkg("--home", tmp_path / "home", "session", "export", target)
    assert done.code == 0, done.err
    assert sorted(path.name for path in target.iterdir()) == sorted([*NAMES, "saved"])
    saved = [str(path.relative_to(target)) for path in (target / "saved").rglob("*") if not path.is_dir()]
    assert sorted(saved) == ["saved/final model.pt", "saved/plots/ü.svg"]
    config = yaml.safe_load((target / "config.yaml").read_text())
    assert config["arguments"] == {"train": {"lr": 0.1}} and config["environment"] == {"API_TOKEN": "(hidden)"}
    assert "hf_secret" not in (target / "session.json").read_text()
    assert [path.name for path in sorted((target / "models").iterdir())] == [f"round-{n}.npz" for n in range(6)]
    assert (target / "models" / "round-5.npz").read_text() == "digits-1.5"
    logs = [path for path in (target / "logs").rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(target)) for path in logs) == [
        "logs/coordinator/starts/1/stdout.log",
        "logs/round-1/client-000/train/stderr.log",
    ]
    assert (target / "uncommitted-1.diff").read_text() == "+lr = 2"
    metrics, table = lines(target / "metric_rows.jsonl"), rows_of(target / "metric_rows.csv")
    assert len(metrics) == len(table) == 15
    assert [str(line["weighted_mean"]) for line in metrics] == [line["weighted_mean"] for line in table]
    first = next(line for line in metrics if line["metric"] == "test_accuracy")
    assert first["phase"] == "validate" and first["min"] <= first["decile_5"] <= first["max"]
    assert len(rows_of(target / "rounds.csv")) == 5
    assert len(lines(target / "validations.jsonl")) + len(lines(target / "failures.jsonl")) == 20


def test_an_export_is_whole_or_absent_and_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = write_session(tmp_path / "home", has_files=True)
    command = ("--home", tmp_path / "home", "session", "export")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "paper.tex").write_text("")
    done = fedpkg(*command, tmp_path / "full")
    assert done.code != 0 and "is not an empty folder" in done.err
    (tmp_path / "empty").mkdir()
    assert (
        fedpkg(*command, tmp_path / "empty", "--models", "last", "--json").json()["content"][-1] == "validations.jsonl"
    )
    assert [path.name for path in (tmp_path / "empty" / "models").iterdir()] == ["round-5.npz"]
    shutil.rmtree(home.models)
    done = fedpkg(*command, tmp_path / "gone")
    assert done.code != 0 and "No such file" in done.err and ".npz" in done.err
    assert fedpkg(*command, tmp_path / "without", "--models", "none").code == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    done = fedpkg(*command, tmp_path / "large")
    assert done.code != 0 and "the export needs about" in done.err and "--models last" in done.err
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["empty", "full", "home", "without"]


def test_tables_hold_any_number_and_no_text_that_a_spreadsheet_computes() -> None:
    rows = [{"metric": "=1+1", "value": float("nan")}, {"metric": "a,b\n", "value": -1.5}]
    assert csv_text(rows) == 'metric,value\n\'=1+1,\n"a,b\n",-1.5\n'
    assert json_lines([{"a": [float("inf"), {"b": float("nan")}]}]) == '{"a": [null, {"b": null}]}\n'
    assert csv_text([]) == ""


def test_sessions_of_an_older_fedpkg_have_the_same_spread_from_their_validations(tmp_path: Path) -> None:
    found = []
    for name, is_former in (("now", False), ("before", True)):
        with open_store(write_session(tmp_path / name, is_former=is_former)) as store:
            found.append(measured(store, "digits-1"))
    now, before = (one.find("test_accuracy")[3] for one in found)
    assert now.deciles == before.deciles and now.std == before.std and now.max == before.max
    assert found[0].names == found[1].names and found[0].costs == found[1].costs
