"""Metrics that packages write as text, and the column of examples where all updates count alike."""

import json

import pytest
from cli_support import fedpkg
from test_data_ways import EVERYWHERE, write_client, write_data

VALIDATE = """
import json, sys
json.dump({"test_mse": "0.125", "steps": " 3 ", "bad": "nan", "note": "ok", "num_examples": 2}, open(sys.argv[2], "w"))
"""


@pytest.fixture
def client(here):
    folder = write_client(here / "client", "save([1, 2, 3], sys.argv[2])")
    (folder / "validate.py").write_text(VALIDATE)
    with (folder / "fedn.yaml").open("a") as spec:
        spec.write("  validate: {command: python validate.py}\n")
    write_data(here / "d")
    return folder


@pytest.mark.parametrize("where", EVERYWHERE)
def test_numbers_in_text_are_numbers_and_other_text_is_shown(client, where):
    how = ["--isolate"] if where == "isolated" else [f"executor.name={where}"]
    ended = fedpkg("run", "--package", "client", "--rounds", "2", "--data", "d/*", *how)
    assert ended.code == 0, ended.err
    about = " writes test_mse, steps, bad as text; such text is read as numbers (logged once)"
    assert ended.err.count(about) == 1, ended.err
    header, first = ended.out.splitlines()[:2]
    assert "test_mse" in header.split() and "0.125" in first.split()
    assert "text of the clients: note (fedpkg validation list)" in ended.out
    listed = fedpkg("validation", "list", "--round", "1").out.splitlines()
    assert listed[0].split() == ["round", "client", "test_mse", "steps", "bad", "note", "weight", "from"]
    assert listed[1].split()[2:6] == ["0.125", "3.000", "nan", "ok"] or listed[1].split()[5] == "ok"
    found = json.loads(fedpkg("validation", "list", "--json").out)
    assert {(row["metrics"]["test_mse"], row["metrics"]["note"]) for row in found} == {(0.125, "ok")}


def test_column_of_examples_is_empty_where_all_updates_count_alike(client):
    ended = fedpkg("run", "--package", "client", "--rounds", "1", "--data", "d/*", "round.weighting=equal")
    assert ended.code == 0, ended.err
    header, first = ended.out.splitlines()[:2]
    at = header.index("examples")
    assert first[at : at + len("examples")].strip() == "" and " examples  " not in ended.err
    assert "2 examples" in fedpkg("run", "--package", "client", "--rounds", "1", "--data", "d/*").err
