"""What is wrong in an experiment is said in its own words: the file and line, the near names, the folder looked in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import fedpkg
from fedpkg.errors import ConfigError
from fedpkg.experiments.composing import compose
from tests.unit.cli.cli_support import fedpkg as command
from tests.unit.experiments.experiment_files import FILES, ROOT, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "paper", FILES)


def refusal(folder: Path, *overrides: str, **files: str) -> str:
    """What `compose` says; ``files`` are changed before, with __ for / in their names."""
    write(folder, {f"{name.replace('__', '/')}.yaml": text for name, text in files.items()})
    with pytest.raises(ConfigError) as caught:
        compose(folder, overrides)
    return str(caught.value).replace(f"{folder.parent}/", "")


def with_defaults(defaults: str) -> str:
    return ROOT.replace("[data: iid, method: fedavg, _self_]", defaults)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("metod=fedavg", "'metod' is neither a key, a parameter nor a group; did you mean 'method'?"),
        ("round.requird=2", "no file of the experiment sets 'round.requird'; did you mean 'required'?"),
        ("ruonds=2", "'ruonds' is neither a key, a parameter nor a group; did you mean 'rounds'?"),
        ("lrr=2", "did you mean 'lr'?"),
        ("method=scafold", "'method' has no option 'scafold'; did you mean 'scaffold'?"),
        ("arguments.train.epochs=2", "no file of the experiment sets 'arguments.train.epochs'"),
        ("arguments.train.bach=2", "sets 'arguments.train.bach'; did you mean 'batch'?"),
        ("~arguments.train.epochs", "no file of the experiment sets 'arguments.train.epochs'"),
        ("+arguments.train.lr=2", "'+arguments.train.lr=2' adds a key that is there already"),
        ("executor=one", "'executor' is a group, but no 'defaults' list names it"),
        ("~executor", "'~executor': no 'defaults' list names this option of 'executor'"),
        ("+method=scaffold", "'+method=scaffold' adds a group that has an option already"),
        ("lr=1,2", "'lr=1,2' has several values"),
        ("seed=range(5)", "'seed=range(5)' has several values"),
        ("lr", "'lr' is not key=value"),
        ("lr=[1", "'lr=[1' cannot be parsed"),
        ("name=a b:c d}", "cannot be parsed"),
        ("name=ü", "'name=ü' cannot be parsed: 'ü' can only stand in quotes"),
        ("method=null", "'method' is a group, whose options are names"),
        ("method=3", "'method' is a group, whose options are names"),
        ("method={a: 1}", "'method' is a group, whose options are names"),
        ("++method=fedprox", "'method' is a group, whose options are names"),
        ("data@clients=iid", "Could not override 'data@clients'"),
        ("+hydra/launcher=x", "unknown key 'hydra/launcher'"),
        ("hydra.run.dir=x", "no file of the experiment sets 'hydra.run.dir'"),
        ("params=3", "'params' is set name by name"),
        ("~params", "'params' is set name by name"),
        ("executor.x.y=1", "`fedpkg config explain executor` lists the keys"),
        ("rounds=three", "'rounds' must be a whole number"),
        ("arguments=[1]", "'arguments'"),
    ],
)
def test_a_wrong_word_is_refused_with_what_is_near(folder: Path, word: str, said: str) -> None:
    text = refusal(folder, word)
    assert text.startswith("on the command line: ")
    assert said in text


def test_an_unknown_group_or_option_names_the_folder_looked_in(folder: Path) -> None:
    assert "groups in paper: data, executor, method" in refusal(folder, "metod=fedavg")
    assert "its options are fedavg, fedprox, scaffold (in paper/method)" in refusal(folder, "method=scafold")
    text = refusal(folder, experiment=with_defaults("\n- method: fedavg\n- dta: iid\n"))
    assert text.startswith("paper/experiment.yaml, line 4: there is no group 'dta'; did you mean 'data'?")
    text = refusal(folder, experiment=with_defaults("\n- method: fedavg\n- data: idd\n"))
    assert text.startswith("paper/experiment.yaml, line 4: 'data' has no option 'idd'; did you mean 'iid'?")
    text = refusal(folder, experiment=with_defaults("[bas]"), base="rounds: 2")
    assert text.startswith("paper/experiment.yaml, line 2: there is no file 'bas.yaml'; did you mean 'base'?")


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"method__fedavg": "defaults: [fedavg]"}, "method/fedavg.yaml → method/fedavg.yaml"),
        (
            {"method__fedavg": "defaults: [/data: iid]", "data__iid": "defaults: [{/method: fedavg}]"},
            "data/iid.yaml → method/fedavg.yaml → data/iid.yaml",
        ),
        ({"method__fedavg": "defaults: [/experiment]"}, "experiment.yaml → method/fedavg.yaml → experiment.yaml"),
    ],
    ids=["of one", "of two", "with the root"],
)
def test_a_cycle_of_defaults_is_named(folder: Path, files: dict[str, str], circle: str) -> None:
    text = refusal(folder, **files)
    assert "'defaults' goes round in a circle: " in text
    assert circle in text


def test_a_root_without_defaults_says_what_it_could_choose(folder: Path) -> None:
    text = refusal(folder, experiment=ROOT.replace("defaults:", "#"))
    assert "there is no 'defaults:' list, so nothing is chosen of the groups data, executor, method" in text
    assert "defaults: [data: dirichlet, _self_]" in text
    assert compose(write(folder, {"experiment.yaml": with_defaults("[]")}), resolve=None).config.rounds == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b", "method/fedavg.yaml: expected 'key: value' lines, found a list"),
        ("fedavg", "method/fedavg.yaml: expected 'key: value' lines, found one value"),
        ("a: [1", "method/fedavg.yaml, line 1: not valid YAML"),
        ("name: a\nname: b", "method/fedavg.yaml, line 2: duplicate key 'name'"),
        ("# @packag strategy\nname: fedavg", "method/fedavg.yaml, line 1: '# @packag strategy' is not a header"),
        ("# @package a b\nname: fedavg", "is not a header that is known"),
        ("defaults: fedprox", "method/fedavg.yaml, line 1: 'defaults' must be a list"),
        ("defaults: [_self_, _self_]", "'_self_' stands twice"),
        ("defaults: [{a: b, c: d}]", "each item of 'defaults' is one GROUP: OPTION"),
        ("defaults: [3]", "each item of 'defaults' is one GROUP: OPTION"),
        ("defaults: [{/data: 3}]", "the option of '/data' must be the name of a file"),
        ("search_path: [x]", "only the root of an experiment can have 'search_path'"),
        ("strateg: {name: fedavg}", "method/fedavg.yaml, line 1: unknown key 'strateg'; did you mean 'strategy'?"),
        ("rounds: x", "method/fedavg.yaml"),  # of the root's, which comes later: see the next test
        ("strategy: {name: fedavgg}", "method/fedavg.yaml, line 1: there is no strategy 'fedavgg'"),
        ("\n\nstrategy:\n  name: fedprox\n  mu: 3", "method/fedavg.yaml, line 5: unknown key 'mu' in 'strategy'"),
        ("strategy: {name: fedprox, proximal_mu: '${muu}'}", "method/fedavg.yaml, line 1: 'strategy.proximal_mu'"),
        ("clients: [1]", "method/fedavg.yaml: cannot be merged with the files before it"),
    ],
)
def test_a_wrong_file_of_a_group_is_named_with_the_line(folder: Path, text: str, said: str) -> None:
    root = with_defaults("[data: iid, _self_, method: fedavg]")
    assert said in refusal(folder, experiment=root, method__fedavg=text)


def test_files_that_cannot_be_read_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "method" / "fedavg.yaml").write_bytes(b"name: \xff")
    assert "method/fedavg.yaml: cannot be read: not UTF-8 text" in refusal(folder)
    assert refusal(tmp_path).startswith(f"{tmp_path.name}: the folder has neither experiment.yaml nor run.yaml")
    with pytest.raises(ConfigError, match=r"there is no such experiment; did you mean 'paper'\?"):
        compose(tmp_path / "papers")


@pytest.mark.parametrize(
    ("root", "said"),
    [
        (f"search_path: ../shared\n{ROOT}", "line 1: 'search_path' must be a list of folders"),
        (f"search_path: [../shared]\n{ROOT}", "shared does not exist"),
        (ROOT.replace("{lr: 0.1, mu", "{rounds: 0.1, mu"), "line 6: 'rounds' in 'params' is also a key of a run.yaml"),
        (ROOT.replace("{lr: 0.1, mu", "{method: 0.1, mu"), "line 6: 'method' in 'params' is also a group"),
        (ROOT.replace("{lr: 0.1, mu", "{l.r: 0.1, mu"), "line 6: 'l.r' in 'params' cannot be a name"),
        (ROOT.replace("{lr: 0.1, mu: 0.01}", "[lr]"), "line 6: 'params' must be a section"),
        (with_defaults("[{data: '???'}]"), "line 2: 'data' is ???, so each run must choose its option"),
        (with_defaults("[data: iid, override executor: one]"), "'executor'"),
        (with_defaults("[data: iid, data: dirichlet]"), "data"),
    ],
)
def test_a_wrong_root_is_refused(folder: Path, root: str, said: str) -> None:
    text = refusal(folder, experiment=root)
    assert text.startswith("paper/experiment.yaml")
    assert said in text


def test_a_missing_folder_of_the_search_path_says_who_named_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="the search path: the folder gone does not exist"):
        compose(folder, search_path=["gone"])
    monkeypatch.setenv("FEDPKG_SEARCH_PATH", "gone")
    assert refusal(folder).startswith("the variable FEDPKG_SEARCH_PATH: the folder gone does not exist")


def test_without_hydra_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "hydra"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hydra", None)
    text = refusal(folder, "lr=2")
    assert "composing an experiment needs hydra-core" in text
    assert "pip install 'fedpkg[experiments]'" in text


@pytest.mark.parametrize("words", [("run",), ("config", "show")])
def test_what_takes_a_run_yaml_says_how_an_experiment_is_run(folder: Path, words: tuple[str, ...]) -> None:
    (folder / "run.yaml").write_text(ROOT)
    result = command(*words, folder / "run.yaml")
    assert result.code == 3
    assert "this is an experiment, which is composed of several files" in result.err
    assert "fedpkg experiment run" in result.err


def test_python_says_how_an_experiment_is_run(folder: Path) -> None:
    for what in (folder, folder / "experiment.yaml"):
        with pytest.raises(ConfigError, match="this is an experiment") as caught:
            fedpkg.prepare(what, folder / "home")
        assert f"fedpkg.run(fedpkg.compose('{folder}'))" in str(caught.value)
