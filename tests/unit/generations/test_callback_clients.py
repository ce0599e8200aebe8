"""Clients with callbacks as packages: FEDn's by its own file alone, Scaleout's by a startup.py, and what they log."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpkg.compute_package.build import build_package
from fedpkg.compute_package.spec import parse_spec
from fedpkg.compute_package.unpack import open_package
from fedpkg.errors import PackageError, SpecError
from fedpkg.means import means

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cli"))
from cli_support import fedpkg

PACKAGES = Path(__file__).resolve().parents[2] / "packages" / "generations"
CLIENT = """
import io
import numpy as np
from fedn import FednClient

{body}
"""
TRAIN = """
def train({parameters}):
    out = io.BytesIO()
    np.savez(out, **{{"0": np.load(in_model)["0"] + 1}})
    return {result}

FednClient(train_callback=train).run()
"""
RESULT = "out, {'training_metadata': {'num_examples': 3}}"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for number in (1, 2):
        x = np.random.default_rng(number).standard_normal((4 + number, 2))
        np.savez(tmp_path / f"site {number}.npz", x=x, y=x @ [1.0, 2.0])
    np.savez(tmp_path / "seed.npz", **{"0": np.zeros(2)})
    return tmp_path


def run(here: Path, package: Path, *more: str) -> Any:
    home = ["--home", here / "Heim", "--seed-model", here / "seed.npz"]
    return fedpkg("run", "--package", package, "--data", str(here / "site *.npz"), "--rounds", "2", *home, *more)


def logged(here: Path, *more: str) -> Any:
    return fedpkg("metric", "list", "--home", here / "Heim", *more)


def write(here: Path, body: str, **values: str) -> Path:
    folder = here / "client"
    folder.mkdir(exist_ok=True)
    (folder / "client.py").write_text(CLIENT.format(body=body.format(**values)))
    return folder


@pytest.mark.parametrize("executor", ["process", "forkserver", "resident"])
def test_script_with_callbacks_runs_without_a_fedn_yaml_and_what_it_logs_is_listed_by_round_and_step(
    here: Path, executor: str
) -> None:
    folder = here / "client"
    shutil.copytree(PACKAGES / "fedn-0.25-callbacks", folder)
    (folder / "fedn.yaml").unlink()
    ended = run(here, folder, f"executor.name={executor}", "run_config.learning_rate=0.05")
    assert ended.code == 0, ended.err
    steps = [one for one in logged(here, "--json").json() if one["entry_point"] == "train"]
    assert [(one["round"], one["client_id"]) for one in steps] == [
        (number, f"site {client}") for number in (1, 2) for client in (1, 2)
    ]
    assert [step["step"] for step in steps[0]["metrics"]] == [0, 1]
    losses = [step["train_mse"] for one in steps if one["client_id"] == "site 1" for step in one["metrics"]]
    assert losses == sorted(losses, reverse=True)
    assert steps[0]["attributes"] == {"charging": "True"}
    assert steps[0]["telemetry"] == {"temperature": 40.5}
    of_round = logged(here, "--round", "2", "--client", "site 2")
    heads = of_round.out.split("\n")[0].split()
    assert heads == ["round", "client", "entry", "point", "step", "train_mse", "epoch", "residual"]
    assert len(of_round.out.splitlines()) == 1 + 3 + 2  # two steps of training, one of validation; two lines below
    assert "round 2, site 2, train: attributes charging=True" in of_round.out
    rounds = fedpkg("session", "show", "--home", here / "Heim", "--json").json()["rounds"]
    assert rounds[1]["train_metrics"]["train_mse"] < rounds[0]["train_metrics"]["train_mse"]
    assert rounds[1]["train_metrics"]["temperature"] == 40.5
    assert rounds[0]["train_metrics"]["batch_size"] == 2
    assert rounds[1]["metrics"]["residual"] == 0.5


@pytest.mark.skipif(means().warm is None, reason="no isolation here")
@pytest.mark.parametrize("executor", ["process", "forkserver"])
@pytest.mark.every_push("process")
def test_callbacks_run_isolated(here: Path, executor: str) -> None:
    ended = run(here, PACKAGES / "fedn-0.25-callbacks", "--isolate", f"executor.name={executor}")
    assert ended.code == 0, ended.err
    steps = [one for one in logged(here, "--json").json() if one["entry_point"] == "train"]
    assert len(steps) == 4 and steps[0]["attributes"] == {"charging": "True"}


def test_clients_that_log_nothing_are_told_so(here: Path) -> None:
    package = write(here, TRAIN, parameters="in_model, settings", result=RESULT)
    assert run(here, package).code == 0
    assert "logged nothing" in logged(here).err


@pytest.mark.parametrize(
    ("parameters", "result"),
    [
        ("in_model", RESULT),  # before FEDn 0.20
        ("in_model, settings=None", RESULT),
        ("*given, in_model=None", "list(given[0]), {'num_examples': 3, 'settings': given[1]}"),
        ("in_model, settings", "out.getvalue(), {'training_metadata': {'num_examples': 3}}"),
        ("in_model, settings", "[w + 1 for w in in_model], {'training_metadata': {'num_examples': 3}}"),
    ],
)
def test_callback_takes_and_returns_what_its_version_did(here: Path, parameters: str, result: str) -> None:
    body = TRAIN.replace("np.load(in_model)", "np.load(in_model or given[0])") if "*" in parameters else TRAIN
    ended = run(here, write(here, body, parameters=parameters, result=result))
    assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("FednClient().run()", "the client has no train callback"),
        ("FednClient(train_callback=lambda *_: None).run()", "it returned NoneType"),
        ("FednClient(train_callback=lambda *_: (3, {{}})).run()", "a model of the type int"),
        ("client = FednClient()", "client.py ended without a call of FednClient.run()"),
        ("FednClient().grpc_handler.send()", "FednClient has no 'grpc_handler' here"),
    ],
)
def test_client_that_runs_no_task_fails_with_the_reason(here: Path, body: str, message: str) -> None:
    ended = run(here, write(here, body))
    assert ended.code != 0
    assert message in ended.err


SEVERAL = {
    "loop": "clients = [FednClient(train_callback=train) for number in range(2)]\nfor client in clients: client.run()",
    "threads": """
import threading

threads = [threading.Thread(target=lambda: FednClient(train_callback=train).run()) for number in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "daemons": """
import threading, time

for number in range(2): threading.Thread(target=lambda: FednClient(train_callback=train).run(), daemon=True).start()
while True: time.sleep(1)
""",
    "forks": """
import multiprocessing

def client(number):
    FednClient(train_callback=train).run()

processes = [multiprocessing.get_context("fork").Process(target=client, args=(n,)) for n in range(2)]
for process in processes: process.start()
for process in processes: process.join()
""",
    "spawned": """
import multiprocessing

def client(number):
    FednClient(train_callback=train).run()

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=client, args=(1,))
    process.start()
    process.join()
""",
}


@pytest.mark.parametrize(("how", "executor"), [*((how, "forkserver") for how in SEVERAL), ("daemons", "resident")])
@pytest.mark.every_push("forkserver")
def test_program_that_makes_several_clients_fails_and_says_what_to_write(here: Path, how: str, executor: str) -> None:
    train = TRAIN.format(parameters="in_model, settings", result=RESULT).rpartition("\nFednClient(")[0]
    folder = write(here, "")
    (folder / "client.py").write_text(CLIENT.format(body=f"{train}\n{SEVERAL[how]}"))
    ended = run(here, folder, f"executor.name={executor}")
    assert ended.code != 0
    in_processes = how in ("forks", "spawned")
    said = "client.py made no client in its own process" if in_processes else "this program makes several clients"
    assert said in ended.err
    assert "--clients N" in ended.err and "='{partition_id}' numbers them" in ended.err


def test_one_client_of_several_is_told_its_number(here: Path) -> None:
    folder = write(here, "")
    body = TRAIN.format(parameters="in_model, settings", result="out, {'num_examples': 1, 'number': number}")
    numbered = "import sys\nnumber = int(sys.argv[1].partition('=')[2])"
    (folder / "client.py").write_text(CLIENT.format(body=f"{numbered}\n{body}"))
    ended = run(here, folder, "arguments.all.number='{partition_id}'", "--clients", "2")
    assert ended.code == 0, ended.err
    (row, _) = fedpkg("session", "show", "--home", here / "Heim", "--json").json()["rounds"]
    assert row["train_metrics"]["number"] == 0.5


def test_client_that_asks_for_its_name_is_told_it(here: Path) -> None:
    body = TRAIN.replace("FednClient(", "name = input('Name of the client: ')\nFednClient(")
    ended = run(here, write(here, body, parameters="in_model, settings", result=RESULT))
    assert ended.code == 0, ended.err
    [log] = (here / "Heim").glob("sessions/*/round-1/site 2/train/stdout.log")
    assert "Name of the client: site 2" in log.read_text()


def test_program_of_callbacks_says_how_it_becomes_a_package_when_it_is_run_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = Path(__file__).resolve().parents[3] / "fedpkg" / "runtime"
    monkeypatch.syspath_prepend(str(runtime / "compat"))
    from fedn.network.clients.fedn_client import FednClient

    with pytest.raises(RuntimeError, match=r"entry_points: {client: {command: python client.py}}"):
        FednClient(train_callback=print).run()
    for name in [name for name in sys.modules if name.partition(".")[0] == "fedn"]:
        del sys.modules[name]


def test_client_callbacks_are_three_entry_points() -> None:
    for text in ("client: python client.py --n 3", "client: {command: python client.py --n 3}"):
        spec = parse_spec(f"entry_points: {{{text}}}\n", "fedn.yaml")
        assert {name: one.command for name, one in spec.entry_points.items()} == {
            name: f"python -m _fedpkg_callbacks {name} script client.py --n 3 --"
            for name in ("train", "validate", "predict")
        }
    plain = parse_spec("entry_points: {train: {command: a}, client: {command: python client.py}}", "fedn.yaml")
    assert plain.entry_points["client"].command == "python client.py"  # one of a person's own
    startup = parse_spec("entry_points: {startup: startup.py, build: model.py}", "fedn.yaml")
    assert list(startup.entry_points) == ["train", "validate", "predict", "build"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "startup: startup.py\n  train: {command: a}",
            "line 3: 'startup' has the callbacks train, validate, predict, but 'train' is also an entry point",
        ),
        ("predict: client.py", "line 2: entry point 'predict' is the file 'client.py', not a command"),
        ("client: bash run.sh", "line 2: entry point 'client' is 'bash run.sh'; write client: {command: …}"),
    ],
)
def test_what_cannot_be_callbacks_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(f"entry_points:\n  {text}\n", "fedn.yaml")
    assert message in caught.value.message


def test_archive_of_a_client_without_fedn_yaml_holds_one(here: Path) -> None:
    folder = write(here, "client = FednClient()")
    archive = build_package(folder, here / "package.tgz")
    assert archive.warnings == ()
    assert [entry.name for entry in archive.files] == ["client/client.py", "client/fedn.yaml"]
    assert not (folder / "fedn.yaml").exists()
    opened = open_package(here / "package.tgz", here / "cache")
    assert list(opened.spec.entry_points) == ["train", "validate", "predict"]
    assert open_package(folder, here / "cache").digest == opened.digest


def test_several_clients_without_fedn_yaml_are_named(here: Path) -> None:
    folder = here / "client"
    folder.mkdir()
    for name in ("a.py", "b.py"):
        (folder / name).write_text("import fedn\nfedn.FednClient()\n")
    with pytest.raises(PackageError) as caught:
        build_package(folder, here / "package.tgz")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("a.py, b.py make clients; create ")
    assert caught.value.hint.endswith("with: entry_points: {client: {command: python a.py}}")
    (folder / "client.py").write_text("from fedn import FednClient\nclass Mine(FednClient): pass\nMine()\n")
    assert build_package(folder, here / "package.tgz").warnings == ()


def test_client_of_an_installed_fedn_is_not_used(here: Path) -> None:
    installed = here / "site" / "fedn"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("raise SystemExit('this one looks for a server')")
    package = write(here, TRAIN, parameters="in_model, settings", result=RESULT)
    ended = run(here, package, f"environment.PYTHONPATH={json.dumps(str(here / 'site'))}")
    assert ended.code == 0, ended.err
