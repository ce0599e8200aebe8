"""``fedpkg run --package``: a package as FEDn's users have it, with no run.yaml; and their words for it."""

import json
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
from cli_support import fedpkg

from fedpkg.config_reading import config_of
from fedpkg.session.package_run import session_name

HELLO = """
import json, os, sys
import numpy as np

def train(in_path, out_path, data):
    model = np.load(in_path)
    x = np.load(data)["x"]
    np.savez(out_path, **{"0": model["0"] + x.sum()})
    json.dump({"num_examples": len(x)}, open(out_path + "-metadata", "w"))
"""
MODEL = """
import numpy as np
np.savez("../seed.npz", **{"0": np.zeros(2, np.float32)})
"""

# How a package reads its data: its train.py after HELLO, its command, and the words that tell what was found.
WAYS = {
    "variable": (
        "train(sys.argv[1], sys.argv[2], os.environ['FEDN_DATA_PATH'])",
        "python train.py",
        "FEDN_DATA_PATH",
    ),
    "options": (
        "import fire\ndef run(in_path, out_path, data_path='/var/data/1.npz'):\n"
        "    train(in_path, out_path, data_path)\n"
        "fire.Fire({'train': run})",
        "python train.py train $ENTRYPOINT_OPTS",
        "ENTRYPOINT_OPTS=--data_path=",
    ),
    "parameter": (
        "import fire\ndef fit(in_path, out_path, data_path=None):\n    train(in_path, out_path, data_path)\n"
        "fire.Fire()",
        "python train.py fit",
        "train --data_path={data_path}",
    ),
    "flag": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('i')\np.add_argument('o')\n"
        "p.add_argument('--data-path')\na = p.parse_args()\ntrain(a.i, a.o, a.data_path)",
        "python train.py",
        "train --data-path={data_path}",
    ),
    "client.yaml": (
        "import yaml\ntrain(sys.argv[1], sys.argv[2], yaml.safe_load(open('client.yaml'))['data'])",
        "python -m train",
        "its own client.yaml beside fedn.yaml",
    ),
    "name": ("train(sys.argv[1], sys.argv[2], './site.npz')", "python train.py", "as site.npz beside fedn.yaml"),
    "folder": ("train(sys.argv[1], sys.argv[2], 'data/site.npz')", "python train.py", "as data beside fedn.yaml"),
}


def write_package(folder: Path, train: str, command: str = "python train.py", **entry_points: str) -> Path:
    client = folder / "client"
    client.mkdir(parents=True)
    (client / "train.py").write_text(HELLO + train)
    (client / "model.py").write_text(MODEL)
    commands = {"build": "python model.py", "train": command, **entry_points}
    lines = [f"  {name}:\n    command: {json.dumps(line)}\n" for name, line in commands.items()]
    (client / "fedn.yaml").write_text("entry_points:\n" + "".join(lines))
    return client


def write_sites(folder: Path, numbers=(1, 2, 10)) -> None:
    for number in numbers:
        site = folder / "data" / "clients" / str(number)
        site.mkdir(parents=True)
        np.savez(site / "site.npz", x=np.full(2, float(number), np.float32))
        (site / "client.yaml").write_text(
            f"name: site {number}\ndata: {json.dumps(str(site.resolve() / 'site.npz'))}\n"
        )


def final_model(folder: Path) -> float:
    ended = fedpkg("model", "export", "latest", "-o", folder / "final.npz", "--force")
    assert ended.code == 0, ended.err
    return float(np.load(folder / "final.npz")["0"][0])


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_package_runs_with_its_data_where_it_looks_for_it(here, way):
    train, command, words = WAYS[way]
    write_package(here / "my project", train, command)
    write_sites(here)
    pattern = "data/clients/*" if way in ("folder", "client.yaml") else "data/clients/*/site.npz"
    ended = fedpkg(
        *("run", "--package", "my project/client", "--data", pattern, "--rounds", "1", "executor.name=process")
    )
    assert ended.code == 0, ended.err
    assert words in ended.err
    assert final_model(here) == pytest.approx((2 + 4 + 20) / 3)
    clients = json.loads(fedpkg("session", "show", "--json").out)["clients"]
    assert [client["client_id"] for client in clients] == ["1", "2", "10"]
    assert sorted(path.name for path in (here / "my project").iterdir()) == ["client"]  # nor ../seed.npz


@pytest.mark.parametrize("way", WAYS)
def test_call_by_hand_finds_the_data_too_and_so_does_its_repetition(here, way):
    train, command, _ = WAYS[way]
    write_package(here / "my project", train, command)
    write_sites(here, numbers=(1, 2))
    np.savez(here / "in.npz", **{"0": np.zeros(2, np.float32)})
    data = "data/clients/2" if way in ("folder", "client.yaml") else "data/clients/2/site.npz"
    words = ("package", "call", "train", "--path", "my project/client", "--input", "in.npz", "--output", "out.npz")
    ended = fedpkg(*words, "--data", data, "--keep", "--json")
    assert ended.code == 0, ended.err
    assert np.load(here / "out.npz")["0"].tolist() == [4, 4]
    if way in ("options", "client.yaml", "name", "folder"):  # others have it as an argument, which a repetition names
        (here / "out.npz").unlink()
        ended = fedpkg(*words, "--task", f"{ended.json()['folder']}/task")
        assert ended.code == 0, ended.err
        assert np.load(here / "out.npz")["0"].tolist() == [4, 4]


def test_infer_is_called_by_its_old_name(here):
    client = write_package(here / "p", "", infer="python infer.py")
    (client / "infer.py").write_text("import sys\nopen(sys.argv[2], 'w').write('42')")
    np.savez(here / "in.npz", **{"0": np.zeros(2, np.float32)})
    ended = fedpkg("package", "call", "infer", "--path", "p/client", "--input", "in.npz", "--output", "out.json")
    assert ended.code == 0, ended.err
    assert (here / "out.json").read_text() == "42"


def test_links_to_data_leave_a_client_no_state(here):
    write_package(here / "p", WAYS["folder"][0])
    write_sites(here)
    arguments = ("run", "--package", "p/client", "--data", "data/clients/*", "--clients", "2", "executor.name=process")
    assert fedpkg(*arguments, "--rounds", "2").code == 0
    assert final_model(here) == pytest.approx(2 * (2 + 4) / 2)
    assert not list(here.glob(".fedpkg/sessions/*/clients/*/*"))
    assert len(list((here / "data" / "clients" / "1").iterdir())) == 2


def test_archive_runs_without_data_and_with_keys(here):
    write_package(here / "p", "train(sys.argv[1], sys.argv[2], os.environ.get('FEDN_DATA_PATH', 'own.npz'))")
    np.savez(here / "p" / "client" / "own.npz", x=np.ones(3, np.float32))
    created = fedpkg("package", "create", "--path", "p/client", "--name", "package.tgz", "-o", "p")
    assert created.code == 0 and (here / "p" / "package.tgz").exists()
    ended = fedpkg("run", "--package", "p/package.tgz", "executor.name=process", "rounds=2", "name=mine")
    assert ended.code == 0, ended.err
    assert final_model(here) == 6
    session = json.loads(fedpkg("session", "show", "--json").out)
    assert session["session_id"].startswith("mine-") and len(session["clients"]) == 2


def test_seed_model_and_rounds_are_taken_with_a_run_yaml_too(here):
    client = write_package(here / "p", "train(sys.argv[1], sys.argv[2], 'own.npz')")
    np.savez(client / "own.npz", x=np.ones(1, np.float32))
    np.savez(here / "my seed.npz", **{"0": np.full(2, 5, np.float32)})
    text = "package: p/client\nrounds: 3\nclients: {count: 1}\nexecutor: {name: process}\n"
    (here / "run.yaml").write_text(text)
    ended = fedpkg("run", "run.yaml", "--rounds", "1", "--seed-model", "my seed.npz")
    assert ended.code == 0, ended.err
    assert final_model(here) == 6


def test_startup_runs_once_for_each_client_and_its_failure_is_the_clients(here):
    startup = """
    import os, sys
    from pathlib import Path
    if os.environ["FEDN_DATA_PATH"].endswith("2/site.npz"):
        sys.exit("no data today")
    path = Path("started")
    path.write_text(path.read_text() + "x" if path.exists() else "x")
    assert len(sys.argv) == 1
    """
    train = "assert open('started').read() == 'x'\ntrain(sys.argv[1], sys.argv[2], os.environ['FEDN_DATA_PATH'])"
    client = write_package(here / "p", train, startup="python startup.py")
    (client / "startup.py").write_text(textwrap.dedent(startup))
    write_sites(here)
    run = ("run", "--package", "p/client", "--data", "data/clients/*/site.npz", "--rounds", "2", "executor.workers=2")
    for executor in ("process", "forkserver", "resident"):
        ended = fedpkg(*run, f"executor.name={executor}", "--home", executor)
        assert ended.code == 0, ended.err
        shown = json.loads(fedpkg("session", "show", "--round", "2", "--json", "--home", executor).out)
        failed = [task for task in shown["tasks"] if task["status"] != "ok"]
        assert [(task["client_id"], task["failure"]) for task in failed] == [("2", "exit_code")]
        assert failed[0]["message"].startswith("'startup' exited with code 1")
        assert failed[0]["log_tail"] == "no data today"
        assert failed[0]["command"] == "python startup.py"
        for text in (ended.err, fedpkg("session", "show", "--home", executor).out):
            assert "stderr   " in text and "2/train/startup.stderr.log" in text, text
            assert "fedpkg package call p/client startup --task " in text, text
    finals = {path.read_bytes() for path in here.glob("*/models/*/*.npz")}
    assert len(finals) == 3  # seed and two rounds, the same in every executor


def test_log_that_is_shown_is_the_one_that_says_something(here):
    client = write_package(here / "p", "print('the data are gone')\nsys.exit(3)", startup="true")
    ended = fedpkg("run", "--package", "p/client", "--clients", "1", "--rounds", "1", "executor.name=process")
    assert "stdout   " in ended.err and "train/stdout.log" in ended.err and "stderr.log" not in ended.err, ended.err
    assert "the data are gone" in ended.err and "package call p/client train --task" in ended.err, ended.err
    (client / "model.py").write_text("print('no room')\nraise SystemExit(4)")
    ended = fedpkg("package", "call", "build", "--path", "p/client")
    assert "stdout   " in ended.err and "stdout.log, last lines:" in ended.err and "stderr" not in ended.err, ended.err


def test_startup_is_called_by_hand_without_paths(here):
    write_package(here / "p", "", startup="echo $# arguments >&2; test $# = 0")
    ended = fedpkg("package", "call", "startup", "--path", "p/client")
    assert ended.code == 0 and "startup  ok" in ended.out


@pytest.mark.parametrize(
    ("command", "writes"),
    [
        ("python model.py", "np.savez('../seed.npz', w=np.ones(2))"),
        ("python model.py", "np.savez('seed.npz', w=np.ones(2))"),
        ("python model.py ../seed.npz", "assert len(sys.argv) == 2; np.savez(sys.argv[1], w=np.ones(2))"),
        ("python model.py", "np.savez(sys.argv[1], w=np.ones(2))"),
    ],
)
def test_build_may_write_where_fedns_packages_do(here, command, writes):
    client = write_package(here / "p", "", build=command)
    (client / "model.py").write_text(f"import sys, numpy as np\n{writes}")
    ended = fedpkg("package", "call", "build", "-p", "p/client", "-o", "here.npz")
    assert ended.code == 0, ended.err
    assert np.load("here.npz")["w"].tolist() == [1, 1]
    assert sorted(path.name for path in here.rglob("*.npz")) == ["here.npz"]


def test_seed_that_lies_in_the_package_is_not_what_build_made(here):
    client = write_package(here / "p", "")
    (client / "model.py").write_text("print('I forgot to save')")
    np.savez(client / "seed.npz", w=np.ones(2))
    ended = fedpkg("package", "call", "build", "-p", "p/client")
    assert ended.code != 0 and "the task wrote no 'out.npz'" in ended.err


def test_build_cannot_hand_in_a_link_as_its_seed(here):
    client = write_package(here / "p", "", build="ln -s /etc/passwd ../seed.npz")
    assert client.exists()
    ended = fedpkg("package", "call", "build", "-p", "p/client")
    assert ended.code != 0 and "'seed.npz' is a symbolic link" in ended.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run",), "nothing to run: give a RUN.yaml, a message app, or a compute package with --package PATH"),
        (("run", "rounds=3"), "nothing to run"),
        (("run", "run.yaml", "--data", "x"), "--clients and --data need --package"),
        (("run", "run.yaml", "--package", "p/client"), "with --package there is no RUN.yaml"),
        (("run", "--package", "nowhere"), "package nowhere does not exist"),
        (("run", "p/client"), "whose folder has a pyproject.toml; a compute package is run by --package p/client"),
        (("run", "an app"), "give the path of a run.yaml, or of a message app, whose folder has a pyproject.toml"),
        (
            ("run", "--package", "p/client", "--data", "no/*"),
            "clients.folders (--data, --database): nothing matches no/*",
        ),
        (
            ("run", "--package", "p/client", "--data", "p/client/*.py", "--clients", "3"),
            "p/client/*.py matches 2, but clients.count is 3",
        ),
        (("run", "--package", "p/client", "round=3"), "on the command line: 'round' must be a section"),
        (("run", "--package", "p/client", "strategy=fedadam"), "write strategy: {name: fedadam}"),
        (("package", "call", "build"), "give a package and one of its entry points"),
    ],
)
def test_wrong_words_are_answered(here, words, message):
    write_package(here / "p", "")
    ended = fedpkg(*words)
    assert ended.code != 0 and message in " ".join(ended.err.split())


def test_unknown_way_to_the_data_is_said(here):
    write_package(here / "p", "print('I read nothing')")
    write_sites(here, (1,))
    ended = fedpkg("run", "--package", "p/client", "--data", "data/clients/*", "executor.name=process")
    assert "warning: the package's scripts do not show how they read their data" in ended.err


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/mnist-pytorch/client", "mnist-pytorch"), ("a/b c.tar.gz", "b-c"), ("a/ÅÄ/client", "session"), ("x.tgz", "x")],
)
def test_session_is_called_after_its_package(path, name):
    assert session_name(Path("/") / path) == name


def test_configuration_from_options_names_the_command_line():
    tree = {"package": "p", "rounds": 0, "clients": {"count": 2}}
    with pytest.raises(
        Exception,
        match="on the command line: 'rounds' must be a whole number from 1, at most 1000000000 or null, found 0",
    ):
        config_of(tree)
    config = config_of(tree, ["rounds=2"])
    found = {**tree, "rounds": 1, "arguments": {"train": {"data": "found"}}}
    added = config_of(found, ["arguments={train: {lr: 1}}"]).arguments
    assert added == {"train": {"data": "found", "lr": 1}}, "what was found stays"
    assert config.package == str(Path.cwd() / "p") and config.rounds == 2


@pytest.mark.parametrize("said", ["beside", "variable", "option"])
def test_split_learning_runs_with_nothing_but_data_and_labels(here, said, monkeypatch):
    shutil.copytree(Path(__file__).parents[2] / "packages" / "split-fedn", here / "client")
    x = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    for number in (1, 2):
        (here / "data" / str(number)).mkdir(parents=True)
        columns = x[:, 2 * number - 2 : 2 * number]
        np.savez(here / "data" / str(number) / "x.npz", X_train=columns[:30], X_test=columns[30:])
    y = (x.sum(axis=1) > 0) * 1.0
    labels = here / ("data/labels.npz" if said == "beside" else "geheim.npz")
    np.savez(labels, y_train=y[:30], y_test=y[30:])
    words = ["run", "--package", "client", "--data", "data/*/x.npz", "--rounds", "2"]
    if said != "beside":
        ended = fedpkg(*words)
        assert ended.code != 0 and "strategy={name: split, labels: FILE}" in " ".join(ended.err.split())
    if said == "variable":
        monkeypatch.setenv("FEDN_LABELS_PATH", "geheim.npz")
    ended = fedpkg(*words, *(["strategy={name: split, labels: geheim.npz}"] if said == "option" else []))
    assert ended.code == 0, ended.err
    assert f"labels   {labels}\n" in ended.err
    assert "loss" in ended.out.splitlines()[0].split()
