"""``fedpkg package``: building, looking, and calling entry points by hand."""

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_support import MISBEHAVE, fedpkg

from fedpkg.means import means


@pytest.fixture
def seed(here):
    ended = fedpkg("model", "seed", MISBEHAVE, "-o", "seed.npz")
    assert ended.code == 0, ended.err
    return here / "seed.npz"


def call(entry_point, *words):
    return fedpkg("package", "call", MISBEHAVE, entry_point, *words)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_build_prints_path_digest_and_size(here):
    ended = fedpkg("package", "build", MISBEHAVE, "-o", "my package.tar.gz")
    assert ended.code == 0
    assert ended.out.splitlines()[0] == "package  my package.tar.gz"
    built = fedpkg("combiner", "build", MISBEHAVE, "-o", "again.tar.gz", "--json").json()
    assert f"sha256   {built['digest']}" in ended.out
    inspected = fedpkg("package", "inspect", "my package.tar.gz", "--json").json()
    assert inspected["digest"] == built["digest"]
    assert set(inspected["entry_points"]) == {"build", "train", "validate"}


def test_build_says_what_went_in_and_what_did_not(here, monkeypatch):
    client = here / "client"
    for name in ("fedn.yaml", ".git/config", "notes.md", "models/a.npz", "models/b.npz"):
        (client / name).parent.mkdir(parents=True, exist_ok=True)
        (client / name).write_text("entry_points: {train: {command: python train.py}}")
    (client / "big.pt").touch()
    os.truncate(client / "big.pt", 150_000_000)  # sparse
    ended = fedpkg("package", "build", "client", "--exclude", "*.md", "--gitignore")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[3:] == [
        "packed    fedn.yaml, models/ (2 files, 98 B)",
        "left out  .git (never packed)",
        "left out  big.pt (a checkpoint of 150 MB; to pack it, use --include 'big.pt')",
    ]
    left_out = fedpkg("package", "build", "client", "--json").json()["left_out"]
    assert [one["name"] for one in left_out] == [".git", "big.pt"]
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.confirm", lambda question, **_: asked.append(question))
    assert "big.pt" in fedpkg("package", "build", "client").out
    assert asked == ["big.pt is a checkpoint of 150.0 MB. Pack it?"]


def test_inspect_says_what_is_preloaded_and_why_something_is_not(here):
    (here / "client").mkdir()
    commands = {"train": "python train.py", "validate": "python -m check", "predict": "bash x.sh"}
    entry_points = {name: {"command": command} for name, command in commands.items()}
    (here / "client" / "fedn.yaml").write_text(json.dumps({"entry_points": entry_points}))
    settings = ["import os", "os.environ['A'] = '1'", "import numpy as np", "from scipy import stats"]
    train = [*settings, "os.environ['B'] = os.getcwd()", "import torch"]
    (here / "client" / "train.py").write_text("\n".join(train))
    (here / "client" / "check.py").write_text("import numpy\n")
    train, check = fedpkg("package", "inspect", "client", "--json").json()["preload"]
    assert train == {
        "scripts": ["train.py"],
        "settings": ["os.environ['A'] = '1'"],
        "modules": ["os", "numpy", "scipy.stats"],
        "left_out": [
            {"module": "torch", "because": "train.py:5 changes os.environ"},
        ],
    }
    assert (check["scripts"], check["modules"], check["left_out"]) == (["-m check"], ["numpy"], [])
    lines = fedpkg("package", "inspect", "client").out.splitlines()
    assert "preloaded               os.environ['A'] = '1', os, numpy, scipy.stats" in lines
    assert "imported in every task  torch: train.py:5 changes os.environ" in lines


def test_build_into_a_place_that_cannot_be_written_is_an_ordinary_error(here):
    (here / "file").touch()
    os.mkfifo(here / "fifo")
    for target, reason in (("file/zz.tgz", "Not a directory"), ("fifo", "it exists and is not an ordinary file")):
        ended = fedpkg("package", "build", MISBEHAVE, "-o", target)
        assert (ended.code, ended.err) == (1, f"error: {target}: {reason}\n")
    assert fedpkg("package", "build", MISBEHAVE, "-o", "fifo", "--json").json()["error"]["exit_code"] == 1
    assert stat.S_ISFIFO((here / "fifo").stat().st_mode)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_build_into_a_folder_without_permission_names_the_archive(here):
    (here / "closed").mkdir(mode=0o500)
    ended = fedpkg("package", "build", MISBEHAVE, "-o", "closed/zz.tgz")
    assert (ended.code, ended.err) == (1, "error: closed/zz.tgz: Permission denied\n")


def test_a_folder_that_is_no_package_has_exit_code_4(here):
    ended = fedpkg("package", "build", here, "-o", "package.tar.gz")
    assert ended.code == 4
    assert "has no fedn.yaml" in ended.err


def test_inspect_makes_no_home(here):
    assert fedpkg("package", "inspect", MISBEHAVE).code == 0
    assert list(here.iterdir()) == []


def test_call_train_writes_the_update_and_its_metadata_and_nothing_else(here, seed):
    before = contents(here)
    ended = call("train", "--input", "seed.npz", "--output", "update.npz", "--", "--num_examples", "7")
    assert ended.code == 0, ended.err
    assert "num_examples  7" in ended.out
    assert json.loads((here / "update.npz-metadata").read_text()) == {"num_examples": 7}
    with np.load(seed) as given, np.load(here / "update.npz") as update:
        assert np.array_equal(update["w"], given["w"] + 1)
    assert contents(here).keys() - before.keys() == {"update.npz", "update.npz-metadata"}
    assert before.items() <= contents(here).items()


def test_call_validate_prints_any_metrics(seed):
    document = call("validate", "--input", seed, "--json", "--", "--how=nested").json()
    assert document["metrics"]["by_class"]["0"] == {"precision": 0.25}
    assert document["tensors"] == []


def test_call_shows_what_the_program_prints_and_how_it_failed(seed):
    ended = call("train", "--input", seed, "--", "--how=exit3")
    assert ended.code == 8
    assert ended.err.startswith("about to give up\nerror: 'train' exited with code 3 after ")
    assert "\n    command  python entrypoint.py train " in ended.err
    assert "/stderr.log, last lines:\n             about to give up" in ended.err
    assert f"\n    try      cd {MISBEHAVE} && python entrypoint.py train " in ended.err


def test_command_that_a_failed_call_suggests_has_the_data_and_the_environment_of_its_run(here, seed):
    words = ["--input", seed, "--keep", "--json", "--data", seed]
    folder = Path(call("train", *words).json()["folder"]) / "task"
    record = json.loads((folder / "task.json").read_text())
    record["environment"] = {"MISBEHAVE": "exit3", "WHO": "{client_id} says 'hej'"}
    (folder / "task.json").write_text(json.dumps(record))
    ended = call("train", "--task", folder, "--input", seed)
    assert ended.code == 8
    line = ended.err.splitlines()[-1].removeprefix("    try      ")
    assert line.startswith(f"cd {MISBEHAVE} && FEDN_DATA_PATH=")
    variables = [f"FEDN_DATA_PATH={seed}", f"SCALEOUT_DATA_PATH={seed}", "MISBEHAVE=exit3", "WHO=client-0 says 'hej'"]
    assert shlex.split(line)[3:7] == variables
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(line, shell=True, env={**os.environ, "PATH": path}, capture_output=True)
    assert (done.returncode, done.stderr) == (3, b"about to give up\n")
    record["environment"]["FEDN_DATA_PATH"] = "another"  # what a person gives wins
    (folder / "task.json").write_text(json.dumps(record))
    assert "&& FEDN_DATA_PATH=another " in call("train", "--task", folder, "--input", seed).err


@pytest.mark.parametrize(
    ("how", "reason"), [("nan", "NaN"), ("no_file", "wrote no 'out.npz'"), ("wrong_shape", "has shape")]
)
def test_call_checks_the_reply_as_a_session_does(how, reason, seed):
    ended = call("train", "--input", seed, "--output", "update.npz", "--json", "--", f"--how={how}")
    assert ended.code == 8
    assert reason in ended.json()["error"]["message"]
    assert not (seed.parent / "update.npz").exists()


def test_call_ends_after_its_timeout(seed):
    ended = call("train", "--input", seed, "--timeout", "0.5", "--", "--how=sleep")
    assert ended.code == 8
    assert "time limit of 0.5 s" in ended.err


def test_call_knows_what_is_wrong_before_it_runs_anything(here, seed):
    assert call("trian", "--input", seed).code == 4
    assert call("train").code == 2
    assert call("train", "--input", seed, "stray").code == 2
    assert call("train", "--input", "nothing.npz").code == 5
    assert call("train", "--input", seed, "--data", "nothing").code == 3
    assert call("train", "--task", here).code == 3


def test_keep_leaves_the_folder(seed):
    folder = call("train", "--input", seed, "--keep", "--json").json()["folder"]
    assert fedpkg("package", "call", MISBEHAVE, "validate", "--task", f"{folder}/task", "--input", seed).code == 0


def as_pipe(path):
    path.unlink()
    os.mkfifo(path)


def as_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("task.json", as_pipe),
        ("task.json", as_link),
        ("task.json", lambda path: path.write_text("[1]")),
        ("task.json", lambda path: path.write_text('{"environment": 3}')),
        ("in.npz-metadata", as_pipe),
        ("in.npz-metadata", as_link),
    ],
)
def test_what_a_task_has_put_into_its_folder_is_not_followed_when_it_is_repeated(here, name, change):
    with open(here / "in.npz", "wb") as file:
        np.savez(file, w=np.zeros(3, np.float32))
    for each in ("task.json", "in.npz-metadata"):
        (here / each).write_text("{}")
    change(here / name)
    ended = call("train", "--task", here)
    assert ended.code in (3, 5)
    assert ended.err.startswith("error: ") and str(here) in ended.err, "it is told before anything runs"


def test_isolated_call_says_so_in_its_record_and_is_repeated_isolated(here, seed):
    if means().cold is None:
        pytest.skip("no isolation here")
    folder = call("train", "--input", seed, "--isolate", "--keep", "--json").json()["folder"]
    assert "isolation" in json.loads((Path(folder) / "task" / "task.json").read_text())
    ended = call("train", "--task", f"{folder}/task", "--input", seed, "--", "--how=raise")
    assert ended.code == 8
    assert "look into " in ended.err
    assert call("train", "--input", seed, "--isolate", "--executor", "resident").code == 3


def test_isolated_call_takes_data_by_a_path_that_goes_up(here, seed):
    if means().cold is None:
        pytest.skip("no isolation here")
    (here / "folder").mkdir()
    ended = call("validate", "--input", seed, "--isolate", "--data", f"folder/../{seed.name}", "--keep", "--json")
    record = json.loads((Path(ended.json()["folder"]) / "task" / "task.json").read_text())
    assert record["data_path"] == str(seed)


def test_call_neither_shows_nor_waits_at_what_a_program_puts_in_the_place_of_its_logs(here, seed):
    (here / "secret").write_text("nobody else may know this")
    (here / "package").mkdir()
    (here / "package" / "fedn.yaml").write_text("entry_points:\n  validate: {command: bash validate.sh}\n")
    (here / "package" / "validate.sh").write_text(
        f"""set -e; folder=$(dirname "$2"); echo fine; echo '{{}}' > "$2"
        while ! [ -e "$folder/stderr.log" ]; do :; done
        rm "$folder"/std*.log; ln -s '{here}/secret' "$folder/stdout.log"; mkfifo "$folder/stderr.log"
        """
    )
    ended = fedpkg("package", "call", "package", "validate", "--input", seed)
    assert ended.code == 0, ended.err
    assert ended.err == "fine\n"


def test_call_of_an_archive_and_with_a_warm_interpreter(here, seed):
    fedpkg("package", "build", MISBEHAVE, "-o", "package.tar.gz")
    ended = fedpkg("package", "call", "package.tar.gz", "train", "--input", seed, "--executor", "forkserver")
    assert ended.code == 0, ended.err
    assert "num_examples  10" in ended.out
