"""Each pattern of a package, in the form of each era of FEDn: the same models on every executor and isolated.

A pattern is a way to the data, to the seed model or to a startup; an era is what its script imports and how its command
calls it. `make soak` runs all of them, CI those in ``EVERY_PUSH``. Tests of their own, on the same executors, have
the packages under tests/packages/generations (test_generations.py), callbacks (test_callback_clients.py), attackers
(test_attack_simulators.py), server functions (tests/unit/coordinators) and split learning (tests/unit/strategies).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cli"))
from cli_support import fedpkg

from fedpkg.means import means

PLACES = ["process", "forkserver", "resident", *(["isolated"] if means().warm else [])]
HAS_ROOT = means().cold not in (None, "landlock")  # an isolated task has a file system of its own


@dataclass(frozen=True)
class Era:
    """Lines that define ``load(path)`` and ``save(arrays, path, num_examples)``, the script's name, its command."""

    head: str
    script: str
    command: str
    is_weighted: bool = True


_OLD = """from fedn.utils.kerashelper import KerasHelper
load = KerasHelper().load_model
save = lambda arrays, path, n: KerasHelper().save_model(arrays, path)
"""
_NEW = """
def load(path):
    return helper.load(path)

def save(arrays, path, n):
    helper.save(arrays, path)
    save_metadata({"num_examples": n}, path)
"""
_SETTINGS = """
def load(path):
    assert load_metadata(path) == {"lr": 0.5}
    return helper.load(path)
"""
_OF_05 = 'from fedn.utils.helpers import get_helper, save_metadata\nhelper = get_helper("kerashelper")\n'
_OF_08 = 'from {}.helpers.helpers import get_helper, load_metadata, save_metadata\nhelper = get_helper("numpyhelper")\n'
ERAS = {
    "0.2": Era(_OLD, "train.py", "python3 train.py", is_weighted=False),
    "0.4": Era("import docker\n" + _OLD, "entrypoint", "/venv/bin/python entrypoint train", is_weighted=False),
    "0.5": Era(_OF_05 + _NEW, "entrypoint", "/venv/bin/python entrypoint train"),
    "0.8": Era(_OF_08.format("fedn.utils") + _NEW, "entrypoint.py", "/venv/bin/python entrypoint.py train"),
    "0.20": Era(_OF_08.format("fedn.utils") + _NEW + _SETTINGS, "train.py", "python train.py"),
    "scaleout": Era(_OF_08.format("scaleoututil") + _NEW, "train.py", "python train.py"),
}

PLAIN = "train(*[word for word in sys.argv[1:] if word != 'train'][:2])"
FIRE = "import fire\nfire.Fire({'train': train})"
ARGPARSE = """
import argparse
parser = argparse.ArgumentParser()
for name in sys.argv[1:-3] + ["in_path", "out_path"]:
    parser.add_argument(name)
parser.add_argument("--data-path")
given = parser.parse_args()
train(given.in_path, given.out_path, given.data_path)
"""
CLICK = """
import click

@click.command()
@click.argument("words", nargs=-1)
@click.option("--data_path")
def main(words, data_path):
    train(*words[-2:], data_path)

main()
"""
ARGV = "train(*sys.argv[-3:-1], sys.argv[-1].removeprefix('--data_path='))"


@dataclass(frozen=True)
class Pattern:
    """One pattern.

    Args:
        data: an expression, the path of the client's data.
        parameter: of ``train`` besides its paths.
        main: the script's last lines.
        options: added to the command.
        entry_points: further ones, by their names.
        files: further ones of the package.
        words: added to the run's command line.
        says: what the run tells.
        has_seed: it is given a seed model.
        is_of_fire: the command must name the function.
        only: the places where it can run.
    """

    data: str = 'join(os.environ["FEDN_DATA_PATH"], "x.npz")'
    parameter: str = ""
    main: str = PLAIN
    options: str = ""
    entry_points: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    says: str = ""
    has_seed: bool = True
    is_of_fire: bool = False
    only: tuple[str, ...] = tuple(PLACES)


_OPTION = {"data": 'join(data_path, "x.npz")', "parameter": ", data_path=None"}
PATTERNS = {
    "the variable": Pattern(says="data     FEDN_DATA_PATH"),
    "the variable as a person gives it": Pattern(
        'os.environ["FEDN_DATA_PATH"]', words=("environment.FEDN_DATA_PATH='{data_path}/x.npz'",), says="(as given)"
    ),
    "variables of threads and hashes": Pattern(
        'os.environ["FEDN_DATA_PATH"] + {"27": "/x.npz"}[os.environ["OMP_NUM_THREADS"] + os.environ["PYTHONHASHSEED"]]',
        words=("environment.OMP_NUM_THREADS=2", "environment.PYTHONHASHSEED=7"),
        says="given    PYTHONHASHSEED=7, OMP_NUM_THREADS=2",
    ),
    "beside the package": Pattern('"../data/x.npz"', says="data     as ../data"),
    "beside its script": Pattern('join(dirname(abspath(__file__)), "..", "data", "x.npz")', says="data     as ../data"),
    "beside fedn.yaml": Pattern('"data/x.npz"', says="data     as data beside fedn.yaml"),
    "settings above": Pattern(
        'join("../data", open("../../client_settings.yaml").read().split()[1])', says="../../client_settings.yaml"
    ),
    "settings of the client": Pattern('open("client.yaml").read().split(": ")[1]', says="its own client.yaml"),
    "of a container": Pattern(
        '"/app/data/x.npz"', says="data     as /app/data", only=("isolated",) if HAS_ROOT and means().warm else ()
    ),
    "a function's parameter": Pattern(
        "data_path", ', data_path="data/x.npz"', says="data     as data beside fedn.yaml"
    ),
    "an option by fire": Pattern(**_OPTION, main=FIRE, is_of_fire=True, says="train --data_path={data_path}"),
    "an option by argparse": Pattern(**_OPTION, main=ARGPARSE, says="train --data-path={data_path}"),
    "an option by click": Pattern(**_OPTION, main=CLICK, says="train --data_path={data_path}"),
    "an option by sys.argv": Pattern(**_OPTION, main=ARGV, says="train --data_path={data_path}"),
    "$ENTRYPOINT_OPTS": Pattern(
        **_OPTION, main=FIRE, options=" $ENTRYPOINT_OPTS", is_of_fire=True, says="ENTRYPOINT_OPTS=--data_path="
    ),
    "a startup": Pattern(
        'join(os.environ["FEDN_DATA_PATH"], open("name").read())',
        entry_points={"startup": "python start.py"},
        files={"start.py": "open('name', 'x').write('x.npz')"},
    ),
    "a startup that is left out": Pattern(
        entry_points={"startup": "exit 3"}, words=("startup=skip",), says="data     FEDN_DATA_PATH"
    ),
    "a startup that downloads": Pattern(
        entry_points={"startup": "python data.py"},
        files={"data.py": "import urllib.request\nurllib.request.urlretrieve('http://127.0.0.1:9/x', 'x')"},
        says="startup  skipped, as data.py:2 downloads",
    ),
    "a startup that makes the data": Pattern(
        entry_points={"startup": "python data.py"},
        files={"data.py": "open('../data/all.csv')"},
        says="startup  skipped, as data.py:1 opens ../data/all.csv",
    ),
    "a build": Pattern(
        entry_points={"build": "python model.py"},
        files={"model.py": "import numpy as np\nnp.savez('../seed.npz', **{'0': np.zeros(2)})"},
        has_seed=False,
    ),
    "a function that makes the seed": Pattern(
        main="def init_seed(out='seed.npz'):\n    np.savez(out, **{'0': np.zeros(2)})\n\n"
        "import fire\nfire.Fire({'init_seed': init_seed, 'train': train})",
        has_seed=False,
        is_of_fire=True,
    ),
    "metrics as text": Pattern(
        entry_points={"validate": "python validate.py"},
        files={"validate.py": "import json, sys\njson.dump({'mse': '0.125', 'note': 'ok'}, open(sys.argv[2], 'w'))"},
        says="writes mse as text",
    ),
    "folders that nobody ships": Pattern(
        files={".git/HEAD": "ref", ".venv/pyvenv.cfg": "home = /x", "__pycache__/x.pyc": ""}, says="data     FEDN"
    ),
}
EVERY_PUSH = {
    ("$ENTRYPOINT_OPTS", "0.4"),
    ("a startup that makes the data", "0.20"),
}
FORMS = [
    pytest.param(pattern, era, marks=pytest.mark.slow if (pattern, era) in EVERY_PUSH else pytest.mark.soak)
    for pattern in PATTERNS
    for era in ERAS
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three clients, who have no equal number of examples, and a seed model of zeros."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2, 3):
        folder = tmp_path / "sites" / str(number)
        folder.mkdir(parents=True)
        np.savez(folder / "x.npz", x=np.full((number, 2), 2.0**number))
        (folder / "client_settings.yaml").write_text("file: x.npz")
        (folder / "client.yaml").write_text(f"data: {folder / 'x.npz'}")
    np.savez(tmp_path / "seed.npz", **{"0": np.zeros(2)})
    return tmp_path


def write(folder: Path, pattern: Pattern, era: Era) -> None:
    script = f"""import os, sys
from os.path import abspath, dirname, join
import numpy as np
{era.head}

def train(in_path, out_path{pattern.parameter}):
    x = np.load({pattern.data})["x"]
    save([w + x.mean(axis=0) for w in load(in_path)], out_path, len(x))


{pattern.main}
"""
    command = era.command
    if pattern.is_of_fire and not command.endswith(" train"):
        command += " train"
    commands = {**pattern.entry_points, "train": command + pattern.options}
    lines = [f"  {name}: {{command: {json.dumps(line)}}}\n" for name, line in commands.items()]
    files = {era.script: script, **pattern.files, "fedn.yaml": "entry_points:\n" + "".join(lines)}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(("pattern", "era"), FORMS)
def test_pattern_gives_the_same_models_everywhere(here: Path, pattern: str, era: str) -> None:
    form, of_time = PATTERNS[pattern], ERAS[era]
    if not form.only:
        pytest.skip("an isolated task has no file system of its own here")
    write(here / "client", form, of_time)
    words = ["--package", "client", "--data", "sites/*", "--rounds", "2", "run_config.lr=0.5", "round.required=3"]
    words += ["--seed-model", "seed.npz"] if form.has_seed else []
    weights = [1, 2, 3] if of_time.is_weighted else [1, 1, 1]
    wanted = [2 * np.average([2.0, 4.0, 8.0], weights=weights)] * 2
    for where in form.only:
        at = ["--isolate"] if where == "isolated" else [f"executor.name={where}"]
        ended = fedpkg("run", *words, *at, *form.words, "--home", f"home {where}")
        assert ended.code == 0, f"{where}: {ended.err}"
        assert form.says in ended.err, f"{where}: {ended.err}"
        exported = fedpkg("model", "export", "latest", "-o", f"{where}.npz", "--home", f"home {where}")
        assert exported.code == 0, exported.err
        np.testing.assert_allclose(np.load(f"{where}.npz")["0"], wanted, rtol=1e-12, err_msg=where)
        assert Path(f"{where}.npz").read_bytes() == Path(f"{form.only[0]}.npz").read_bytes(), where
