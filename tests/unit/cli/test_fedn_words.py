"""The commands that users of FEDn and Scaleout type: each runs, or is answered in one line."""

import json
import re
import shutil

import numpy as np
import pytest
from cli_support import MISBEHAVE, REPO, fedpkg
from packages_on_data import write_client

from fedpkg.cli.fedn_words import ANSWERS, SAME

PAGE = (REPO / "docs" / "reference" / "fedn-commands.md").read_text()

ANSWERED = {
    "client start --api-url api.host --local-package": "fedpkg run --package client --data 'data/clients/*'",
    "client list": "fedpkg session show",
    "client get-config -g 3": "fedpkg run --package",
    "combiner start --init settings.yaml": "there is no server here",
    "combiner list": "there is no server here",
    "controller start": "there is no server here",
    "hooks start": "there is no server here",
    "studio login -u me": "there is no account",
    "project list": "FEDPKG_HOME",
    "session start -n mine -r 5": "fedpkg run --package client --data 'data/clients/*'",
    "package set-active package.tgz": "fedpkg run --package package.tgz",
    "package list": "fedpkg session list",
    "model set-active -f seed.npz": "fedpkg run --package client --seed-model seed.npz",
    "model get -id 3": "fedpkg model list",
    "round get -id 3": "fedpkg session show SESSION --round 3",
    "validation get -id 3": "fedpkg validation list SESSION",
    "status list": "fedpkg session show SESSION --round 3",
    "config": "fedpkg config show run.yaml",
}


@pytest.mark.parametrize("line", ANSWERED)
def test_a_command_that_needs_a_server_is_answered_in_one_line(line, here):
    ended = fedpkg(*line.split())
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert "is a command of FEDn" in ended.err and ANSWERED[line] in ended.err


def test_the_answer_names_the_command_without_its_options(here):
    assert "'round' is a command of FEDn" in fedpkg("round", "--help").err
    assert fedpkg("config", "--help").code == 0


def test_calls_by_hand_run_with_fedns_words(here):
    shutil.copytree(REPO / "tests" / "packages" / "nearest-mean", here / "client")
    with open(here / "client" / "fedn.yaml", "a") as spec:
        spec.write("  startup:\n    command: echo ready\n")
    np.savez("seed.npz", **{"0": np.zeros(1)})
    built = fedpkg("run", "build", "--path", "client", "-v")
    assert built.code == 0 and "here this is `fedpkg package call build --path client`" in built.err
    started = fedpkg("run", "startup", "--path", "client")
    assert started.code == 0 and "ready" in started.err
    tried = fedpkg("run", "train", "-p", "client", "-i", "seed.npz")
    assert "not kept; --output FILE keeps it" in tried.out and "not kept" not in started.out
    trained = fedpkg("run", "train", "-p", "client", "-i", "seed.npz", "-o", "update.npz", "--keep-venv")
    assert trained.code == 0 and "not kept" not in trained.out, trained.err
    with np.load("update.npz") as arrays:
        assert arrays["0"].tolist() == [2.25]
    validated = fedpkg("run", "validate", "--path", "client", "--input=update.npz", "--output", "report.json")
    assert validated.code == 0, validated.err
    assert json.loads((here / "report.json").read_text()) == {"test_accuracy": 0.8}


def test_what_a_home_holds_is_shown_with_fedns_words(here, finished):
    home, *_ = finished
    session = fedpkg("session", "list", "--home", home, "--json").json()[0]["session_id"]

    def same(theirs, ours):
        first, second = fedpkg(*theirs, "--home", home), fedpkg(*ours, "--home", home)
        assert first.code == 0, first.err
        assert first.out == second.out
        return first

    server = ["-H", "api.host", "-P", "8092", "-t", "token", "-p", "https"]
    assert "here this is" in same(["session", "list", "--n_max", "3", *server], ["session", "list"]).err
    assert session in same(["session", "get", "-id", session], ["session", "show", session]).out
    same(["round", "list", "-s", session], ["session", "show", session])
    same(["validation", "list", "--session_id", session], ["validation", "list", session])
    same(["model", "list", "-s", session, *server], ["model", "list", session])
    same(["model", "list"], ["model", "list"])
    assert fedpkg("model", "download", "-id", f"{session}.1", "-f", "model.npz", "--home", home).code == 0
    assert (here / "model.npz").exists()


def test_a_package_is_created_with_fedns_words(here):
    assert fedpkg("package", "create", "-p", MISBEHAVE, "-n", "package.tgz").code == 0
    assert (here / "package.tgz").exists()


def test_a_file_named_as_an_entry_point_is_still_a_configuration(here):
    (here / "train").write_text("package: nowhere")
    assert "rounds" in fedpkg("run", "train").err


def test_the_page_has_every_command(here):
    rows = re.findall(r"^\| `fedn ([a-z-]+(?: [a-z-]+)?)", PAGE, flags=re.MULTILINE)
    for known in [*SAME, *ANSWERS, "package create"]:
        assert any(row == known or row.partition(" ")[0] == known for row in rows), f"fedn {known}"


def test_api_client_in_a_package_can_be_imported_and_is_refused_in_a_line_that_is_shown_whole(here):
    write_client(here / "client", "from fedn import APIClient\nsave([1, 2, 3], sys.argv[2])")
    assert fedpkg("run", "--package", "client", "--rounds", "1").code == 0
    train = here / "client" / "train.py"
    train.write_text(train.read_text() + "\nAPIClient(host='localhost', port=8092)\n")
    ended = fedpkg("run", "--package", "client", "--rounds", "1")
    assert ended.code != 0, ended.err
    assert "… RuntimeError: APIClient cannot be used here: a task has no server. " in ended.err, ended.err
    assert "; `fedpkg exec SCRIPT.py` runs scripts that start sessions\n" in ended.err
