"""Seed models that packages without an entry point `build` make, in the forms of each version of FEDn."""

import numpy as np
import pytest
from cli_support import fedpkg
from packages_on_data import EVERYWHERE, model, write_client

ONES = "**{'0': np.ones(3, np.float32)}"
SEEDS = {
    "a function with a path": (f"def init_seed(out_path='seed.npz'): np.savez(out_path, {ONES})", ""),
    "a function without": (f"def init_seed(): np.savez('seed.npz', {ONES})", ""),
    "another name": (f"def make(path): np.savez(path, {ONES})", "{'init_seed': make, 'train': train}"),
}


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("form", SEEDS)
@pytest.mark.every_push("forkserver|another name-(process|isolated)")
def test_init_seed_makes_the_seed_where_there_is_no_build(here, form, where):
    function, handed = SEEDS[form]
    train = f"import fire\n{function}\ndef train(model, out): save(np.load(model)['0'] + 1, out)\nfire.Fire({handed})"
    write_client(here / "client", train, "python train.py train")
    spec = (here / "client" / "fedn.yaml").read_text().splitlines()
    (here / "client" / "fedn.yaml").write_text("\n".join(line for line in spec if "build" not in line))
    how = ["--isolate"] if where == "isolated" else [f"executor.name={where}"]
    ended = fedpkg("run", "--package", "client", "--rounds", "1", *how)
    assert ended.code == 0, ended.err
    assert model() == [2, 2, 2]
    ended = fedpkg("package", "call", "client", "init_seed", "-o", "made.npz")
    assert ended.code == 0, ended.err
    assert np.load("made.npz")["0"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("parameters", ["", "out_path='seed.npz'"])
@pytest.mark.every_push("forkserver|seed.npz'-isolated")
def test_init_seed_of_the_only_file_that_has_one_makes_the_seed(here, parameters, where):
    write_client(here / "client", "save(np.load(sys.argv[1])['0'] + 1, sys.argv[2])")
    (here / "client" / "fedn.yaml").write_text("entry_points: {train: {command: python train.py}}")
    out = "out_path" if parameters else "'seed.npz'"
    (here / "client" / "model.py").write_text(
        f"import numpy as np\ndef init_seed({parameters}): np.savez({out}, {ONES})"
    )
    how = ["--isolate"] if where == "isolated" else [f"executor.name={where}"]
    ended = fedpkg("run", "--package", "client", "--rounds", "1", *how)
    assert ended.code == 0, ended.err
    assert model() == [2, 2, 2]
    (here / "client" / "other.py").write_text("def init_seed(): pass")
    assert "has no 'build' entry point" in fedpkg("run", "--package", "client", "--rounds", "1").err


def test_error_of_a_missing_seed_says_both_ways(here):
    write_client(here / "client", "save([1, 2, 3], sys.argv[2])")
    (here / "client" / "fedn.yaml").write_text("entry_points: {train: {command: python train.py}}")
    ended = fedpkg("run", "--package", "client")
    told = " ".join(ended.err.split())
    assert "has no 'build' entry point" in told and "(--seed-model FILE)" in told
    assert "or add an entry point 'build', or a function init_seed, that writes a model file to the package" in told


FEDN = "import collections, sys, numpy as np\nfrom fedn.utils.pytorchhelper import PytorchHelper\n"
SCRIPTS = {
    "in a folder that is not there": "PytorchHelper().save_model(seed(), '../initial_model/initial_model.npz')",
    "by a function": "write('seed/first.npz')",
    "by a word of its command": "PytorchHelper().save_model(seed(), path='/seed/' + sys.argv[1])",
}


def write_former(folder, main, name="init_model.py"):
    """A package as before FEDn 0.4: its seed model is made by a script of its own."""
    write_client(folder, "save(np.load(sys.argv[1])['0'] + 1, sys.argv[2])")
    (folder / "fedn.yaml").write_text("entry_points: {train: {command: python train.py}}")
    (folder / "seed.py").unlink()
    seed = "def seed(): return collections.OrderedDict({'0': np.ones(3, np.float32)})\n"
    write = "def write(path): PytorchHelper().save_model(seed(), path)\n"
    (folder / name).write_text(f"{FEDN}{seed}{write}if __name__ == '__main__':\n\t{main}\n")


FORMS = [("by a function", where) for where in EVERYWHERE[:3]] + [(form, "process") for form in [*SCRIPTS][::2]]


@pytest.mark.parametrize(("form", "where"), FORMS)
def test_script_that_saves_a_seed_by_fedns_helper_makes_it(here, form, where):
    write_former(here / "client", SCRIPTS[form])
    how = ["--isolate"] if where == "isolated" else [f"executor.name={where}"]
    ended = fedpkg("run", "--package", "client", "--rounds", "1", *how)
    assert ended.code == 0, ended.err
    assert model() == [2, 2, 2]
    assert sorted(path.name for path in here.iterdir()) == [".fedpkg", "client", "final.npz", "final.npz-metadata"]


def test_scripts_that_do_not_show_which_makes_the_seed_are_left_alone(here):
    write_former(here / "client", SCRIPTS["by a function"])
    write_former(here / "two" / "client", SCRIPTS["by a function"])
    write_former(here / "two" / "other", SCRIPTS["by a function"], name="make.py")
    (here / "two" / "other" / "make.py").rename(here / "two" / "client" / "make.py")
    (here / "client" / "init_model.py").rename(here / "init_model.py")
    told = " ".join(fedpkg("run", "--package", "client").err.split())
    assert "(--seed-model FILE)" in told and "init_model.py beside the package saves one when it is run" in told
    told = " ".join(fedpkg("run", "--package", "two/client").err.split())
    assert "has no 'build' entry point" in told and "beside the package" not in told


def test_function_init_model_counts_if_it_saves_a_model(here):
    write_client(here / "client", "save(np.load(sys.argv[1])['0'] + 1, sys.argv[2])")
    (here / "client" / "seed.py").unlink()
    main = "def train(i, o): np.savez(o, **np.load(i)); open(o + '-metadata', 'w').write('{\"num_examples\": 1}')\n"
    main += "def init_model(path): HELPER.save([np.ones(3)], path)\nimport fire\nfire.Fire()"
    helper = (
        "import numpy as np\nfrom fedn.utils.helpers.helpers import get_helper\nHELPER = get_helper('numpyhelper')\n"
    )
    (here / "client" / "entrypoint").write_text(helper + main)
    (here / "client" / "fedn.yaml").write_text("entry_points: {train: {command: python entrypoint train}}")
    ended = fedpkg("run", "--package", "client", "--rounds", "1")
    assert ended.code == 0, ended.err
    assert model() == [1, 1, 1]
    (here / "client" / "entrypoint").write_text(helper + main.replace("HELPER.save([np.ones(3)], path)", "return path"))
    assert "has no 'build' entry point" in fedpkg("run", "--package", "client", "--rounds", "1").err


def test_script_that_trains_and_is_called_by_another_file_is_not_taken_for_one_that_makes_the_seed(here):
    write_former(here / "client", "write(sys.argv[2])", name="training.py")
    (here / "client" / "train.sh").write_text("python training.py $@")
    (here / "client" / "fedn.yaml").write_text("entry_points: {train: {command: bash train.sh}}")
    assert "has no 'build' entry point" in fedpkg("run", "--package", "client").err
