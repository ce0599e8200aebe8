"""Where packages of FEDn look for their data: beside themselves, in their container, by options that they take."""

import json
import os
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest
from cli_support import fedpkg
from packages_on_data import EVERYWHERE, FINAL, ISOLATE, data_line, model, run, write_client, write_data

from fedpkg.compute_package.script_paths import Sources
from fedpkg.means import means

BESIDE = {
    "a string": ("""save(np.loadtxt("../data/x.csv", delimiter=","), sys.argv[2])""", "as ../data"),
    "its own folder": (
        """save(np.loadtxt(join(dirname(abspath(__file__)), "..", "data", "x.csv"), delimiter=","), sys.argv[2])""",
        "as ../data",
    ),
    "a variable": (
        """
        here = Path(__file__).resolve().parent
        name = sys.argv[0].replace("train.py", "x.csv")
        save(np.loadtxt(here.parent / "data" / Path(name).name, delimiter=","), sys.argv[2])
        """,
        "as ../data",
    ),
    "a file": (
        """
        lr = float(open("../../client_settings.yaml").read().split()[1])
        save(np.loadtxt("../dataset/x.csv", delimiter=",") * lr / lr, sys.argv[2])
        """,
        "as ../dataset, its own client_settings.yaml as ../../client_settings.yaml",
    ),
}


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("way", BESIDE)
@pytest.mark.every_push("forkserver|a file-(process|isolated|resident)")
def test_data_beside_the_package_is_the_clients_own(here, way, where):
    train, words = BESIDE[way]
    write_client(here / "client", train)
    write_data(here / "d")
    ended = run("rounds=2", "executor.workers=2", where=where)
    assert ended.code == 0, ended.err
    assert data_line(ended) == words
    assert model() == [1.5, 2.5, 3.5]
    assert not list(here.glob(".fedpkg/sessions/*/clients/*/*")), "links are no part of a client's state"
    assert sorted(path.name for path in here.iterdir()) == [".fedpkg", "client", "d", *FINAL]


@pytest.mark.parametrize("where", ["process", "forkserver", pytest.param("isolated", marks=ISOLATE)])
@pytest.mark.every_push("forkserver|isolated")
def test_state_of_a_client_has_no_links_beside_its_package(here, where):
    train = (
        "open('seen', 'a').write(open('../data/x.csv').read()[0])\nsave([len(open('seen').read())] * 3, sys.argv[2])"
    )
    write_client(here / "client", train)
    write_data(here / "d")
    ended = run("rounds=3", where=where)
    assert ended.code == 0, ended.err
    assert model() == [3, 3, 3]
    kept = [path.name for path in here.glob(".fedpkg/sessions/*/clients/*/*/*")]
    assert sorted(set(kept)) == ["package", "state"]


def test_file_is_linked_where_a_script_opens_one(here):
    write_client(here / "client", 'save(np.loadtxt("../data/diabetes.csv", delimiter=","), sys.argv[2])')
    write_data(here / "d")
    ended = run(data="d/*/x.csv")
    assert ended.code == 0, ended.err
    assert data_line(ended) == "as ../data/diabetes.csv" and model() == [1.5, 2.5, 3.5]
    assert not list(here.glob(".fedpkg/sessions/*/clients/*/*"))


def test_link_beside_the_package_can_be_said(here):
    write_client(here / "client", 'save(np.loadtxt(".." + os.sep + "odd/x.csv", delimiter=","), sys.argv[2])')
    write_data(here / "d")
    ended = run("clients.links={../odd: .}")
    assert ended.code == 0, ended.err
    assert "as ../odd" in data_line(ended) and model() == [1.5, 2.5, 3.5]


def test_place_that_is_nobodys_own_is_refused_as_a_link(here):
    write_client(here / "client", "save([1, 2, 3], sys.argv[2])")
    write_data(here / "d")
    for name in ("../package", "../state/x", "../../1-train", "../../../../x", "a/../b", "..", "fedn.yaml", "a//b"):
        ended = run(f"clients.links={{{json.dumps(name)}: .}}")
        assert ended.code != 0 and f"'{name}' in 'clients.links' cannot be the name of a link" in ended.err, name
        assert "use the path that the package's program opens, for example data, client.yaml or ../data" in ended.err
    with tarfile.open("flat.tgz", "w:gz") as archive:  # fedn.yaml at its top
        archive.add("client", arcname=".")
    ended = fedpkg("run", "--package", "flat.tgz", "--rounds", "1", "--data", "d/*", "clients.links={../../../x: .}")
    assert "clients.links: ../../../x is outside the folder that belongs to " in ended.err
    ended = run("clients.links={/app/data: .}")
    assert "'/app/data' in 'clients.links' is a path that all clients would share" in " ".join(ended.err.split())
    assert "set isolate.enabled (--isolate), so that each client has its own" in " ".join(ended.err.split())


def test_data_of_a_container_is_told_of_without_isolation(here):
    write_client(here / "client", 'save(np.loadtxt("/app/data/x.csv", delimiter=","), sys.argv[2])')
    write_data(here / "d")
    ended = run()
    about = (
        "warning: train.py:10 opens /app/data, which all clients would share: use --isolate, so that each finds its "
        "own data there, or change the path"
    )
    assert ended.code != 0 and about in ended.err and "do not show how they read" not in ended.err


@ISOLATE
@pytest.mark.parametrize("where", ["process", "forkserver"])
@pytest.mark.every_push("forkserver")
def test_data_of_a_container_is_there_with_isolation(here, where):
    write_client(here / "client", 'save(np.loadtxt("/app/data/x.csv", delimiter=","), sys.argv[2])')
    write_data(here / "d")
    ended = run(f"executor.name={where}", where="isolated")
    if means().cold == "landlock":
        assert "data cannot be linked there if only Landlock isolates the task" in ended.err
        return
    assert ended.code == 0, ended.err
    assert data_line(ended) == "as /app/data" and model() == [1.5, 2.5, 3.5]
    assert not Path("/app/data").exists()
    ended = run("clients.links={/usr/share: .}", where="isolated")
    assert "data cannot be linked at /usr/share: an isolated task sees /usr there" in ended.err


# A parameter or word `data_path` of a script, its command, and whether a flag can set it.
FLAGS = {
    "fire": ("import fire\ndef train(i, o, data_path=None): pass\nfire.Fire()", "python train.py train", "data_path"),
    "fire by name": (
        "import fire\ndef t(i, o, data_path=None): pass\nfire.Fire({'train': t})",
        "python train.py",
        "data_path",
    ),
    "fire elsewhere": ("import fire\nfrom other import train\nfire.Fire(train)", "python train.py", "data_path"),
    "argparse": (
        "import argparse\nargparse.ArgumentParser().add_argument('--data-path')",
        "python train.py",
        "data-path",
    ),
    "click": (
        "import click\n@click.command()\n@click.option('--data_path')\ndef f(): 0",
        "python -m train",
        "data_path",
    ),
    "sys.argv": ("import sys\nif '--data_path' in sys.argv: pass", "python -u train.py", "data_path"),
    "typing of a function": (
        "import sys\ndef train(i, o, data_path=None): 0\ntrain(*sys.argv[1:3])",
        "python train.py",
        None,
    ),
    "a word of a docstring": ('"""Give --data_path."""\nimport sys\ndef f(data_path): 0', "python train.py", None),
    "fire of another": (
        "import fire\ndef load(data_path): 0\ndef train(i, o): 0\nfire.Fire(train)",
        "python train.py",
        None,
    ),
}


@pytest.mark.parametrize("form", FLAGS)
def test_option_counts_only_where_something_reads_it(tmp_path, form):
    script, command, flag = FLAGS[form]
    (tmp_path / "train.py").write_text(script)
    (tmp_path / "other.py").write_text("def train(i, o, data_path='x'): pass")
    found = Sources(tmp_path).option(command.split(), "train", "data_path")
    assert (None if found is None else found[0]) == flag


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.every_push("forkserver")
def test_parameter_that_nothing_sets_leaves_the_data_to_a_link(here, where):
    train = """
    def train(model, out, data_path=None):
        save(np.loadtxt("data/x.csv", delimiter=","), out)
    train(sys.argv[1], sys.argv[2])
    """
    write_client(here / "client", train)
    write_data(here / "d")
    ended = run(where=where)
    assert ended.code == 0, ended.err
    assert data_line(ended) == "as data beside fedn.yaml" and model() == [1.5, 2.5, 3.5]


def test_file_of_a_folder_is_given_where_a_script_opens_one_of_that_name(here):
    train = """
    here = dirname(abspath(__file__))
    path = os.environ.get("FEDN_DATA_PATH", here + "/data/clients/1/x.csv")
    lr = float(open("../../client_settings.yaml").read().split()[1])
    save(np.loadtxt(path, delimiter=",") * lr, sys.argv[2])
    """
    write_client(here / "client", train)
    write_data(here / "d")
    ended = run()
    assert ended.code == 0, ended.err
    settings = "its own client_settings.yaml as ../../client_settings.yaml"
    assert data_line(ended) == f"FEDN_DATA_PATH={{data_path}}/x.csv, {settings}"
    assert model() == [2.5, 4, 5.5] and "given " not in ended.err
    ended = run("environment.FEDN_DATA_PATH='{data_path}/y.csv'")
    assert ended.code != 0 and "given    FEDN_DATA_PATH={data_path}/y.csv, in place of what fedpkg sets" in ended.err


def test_settings_of_a_client_are_given_to_the_option_that_takes_them(here):
    train = """
    import fire
    def train(model, out, data_path=None, client_settings_path="/var/client_settings.yaml"):
        lr = float(open(client_settings_path).read().split()[1])
        save(np.loadtxt(data_path + "/x.csv", delimiter=",") * lr, out)
    fire.Fire(train)
    """
    write_client(here / "client", train)
    write_data(here / "d")
    ended = run()
    assert ended.code == 0, ended.err
    options = ["train --data_path={data_path}", "train --client_settings_path={data_path}/client_settings.yaml"]
    assert data_line(ended) == ", ".join(options)
    assert model() == [2.5, 4, 5.5]  # of the mean of 1 * (1 2 3) and 2 * (2 3 4)


COMMON = {
    "a path": ("""settings = open("../../client_settings.yaml")""", "the common client_settings.yaml as ../../"),
    "a variable": ("""settings = open(os.environ["FEDN_CLIENT_SETTINGS_PATH"])""", "FEDN_CLIENT_SETTINGS_PATH"),
}


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("way", COMMON)
def test_settings_beside_the_package_are_for_all_clients_whose_data_has_none(here, way, where):
    opens, words = COMMON[way]
    train = f"""
    {opens}
    save(np.loadtxt("../data/x.csv", delimiter=",") * float(settings.read().split()[1]), sys.argv[2])
    """
    write_client(here / "client", train)
    write_data(here / "d")
    (here / "client_settings.yaml").write_text("lr: 2")
    assert run(where=where).code == 0 and model() == [2.5, 4, 5.5], "each client has its own"
    for path in here.glob("d/*/client_settings.yaml"):
        path.unlink()
    ended = run(where=where)
    assert ended.code == 0, ended.err
    assert words in data_line(ended) and model() == [3, 5, 7]
    assert not list(here.glob(".fedpkg/sessions/*/clients/*/*"))


def test_link_to_a_file_for_all_clients_can_be_said_and_is_looked_for(here):
    write_client(here / "client", 'save([float(open("../common/lr").read())] * 3, sys.argv[2])')
    (here / "lr").write_text("0.5")
    ended = fedpkg("run", "--package", "client", "--rounds", "1", f"clients.links={{../common/lr: {here / 'lr'}}}")
    assert ended.code == 0, ended.err
    assert model() == [0.5, 0.5, 0.5]
    for target in (here / "gone", here):
        ended = fedpkg("run", "--package", "client", f"clients.links={{../common/lr: {target}}}")
        assert ended.code != 0 and "and there is no such file" in " ".join(ended.err.split()), ended.err


def test_number_of_a_client_is_in_the_variable_that_tells_it_its_part_of_common_data(here):
    train = """
    number = int(os.environ["FEDN_DATA_SPLIT_INDEX"])
    assert os.environ["CLIENT_NUMBER"] == str(number)
    save(np.loadtxt(os.environ["FEDN_DATA_PATH"] + f"/part-{number}.csv", delimiter=","), sys.argv[2])
    """
    write_client(here / "client", train)
    write_data(here / "d")
    for site, number in ((1, 0), (1, 1), (2, 0), (2, 1)):
        (here / "d" / str(site) / f"part-{number}.csv").write_text(f"{number},{site},3")
    ended = run()
    assert ended.code == 0, ended.err
    assert model() == [0.5, 1.5, 3] and data_line(ended) == "FEDN_DATA_PATH"
    told = fedpkg("package", "inspect", "client", "--data", "d/*", "--json").json()
    assert {way["name"]: way["value"] for way in told["data"]}["CLIENT_NUMBER"] == "{partition_id}"


@pytest.mark.parametrize("data", ["d/*", "d/*/x.csv"])
def test_imported_package_downloads_nothing_that_is_given(here, data):
    (here / "client").mkdir()
    (here / "client" / "scaleout.yaml").write_text("entry_points: {startup: startup.py, build: model.py}")
    build = "def build(): np.savez('seed.npz', **{'0': np.zeros(3)})"
    (here / "client" / "model.py").write_text(f"import numpy as np\n{build}")
    (here / "client" / "data.py").write_text(
        textwrap.dedent(
            """\
            import os, urllib.request
            import numpy as np
            HERE = os.path.dirname(os.path.abspath(__file__))
            OUT = os.path.join(HERE, "data")
            def load(path=None):
                path = os.environ.get("SCALEOUT_DATA_PATH", OUT + "/clients/1/x.csv") if path is None else path
                return np.loadtxt(path + "/x.csv" if os.path.isdir(path) else path, delimiter=",")
            def prepare(out=OUT):
                file = os.path.join(out, "clients", "1", "x.csv")
                if not os.path.exists(file):
                    urllib.request.urlopen("http://127.0.0.1:9/x")
            """
        )
    )
    (here / "client" / "startup.py").write_text(
        textwrap.dedent(
            """\
            from data import load, prepare
            def startup(client):
                prepare()
                client.set_train_callback(lambda model, settings: ([load()], {"num_examples": 1}))
            """
        )
    )
    write_data(here / "d")
    ended = run(data=data)
    assert ended.code == 0, ended.err
    assert data_line(ended).startswith("SCALEOUT_DATA_PATH") and model() == [1.5, 2.5, 3.5]
    assert not list(here.glob(".fedpkg/sessions/*/clients/*/*/package/client/data/clients/1/*"))


def test_paths_are_read_as_far_as_they_can_be_told(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text(
        textwrap.dedent(
            '''\
            """Opens ../nothing."""
            import os
            here = os.path.dirname(os.path.abspath(__file__))
            top = Path(__file__).resolve().parent.parent
            open(os.path.join(here, "..", "..", "one", name))
            open(here + "/../../two/y")
            open(f"../three/{name}.csv")
            open(top.parent / "four" / "z.csv")
            open(Path(__file__).parents[2] / "five")
            open(unknown + "/six/x")
            open(os.path.join(os.environ["x"], "seven"))
            def load(path="../eight"): ...
            name = name + "/nine"
            number = 1
            open(f"../eleven/{number}/x{2}.csv")
            open(os.path.join("../twelve", open("../thirteen").read()))
            '''
        )
    )
    (tmp_path / "b.sh").write_text("cat ../ten/x > /dev/null\n")
    found = {(one.path, one.place, one.whole) for one in Sources(tmp_path).named()}
    assert found >= {
        ("src/../../one/", "src/a.py:5", False),
        ("src/../../two/y", "src/a.py:6", True),
        ("../three/", "src/a.py:7", False),
        ("./../four/z.csv", "src/a.py:8", True),
        ("./../five", "src/a.py:9", True),
        ("../eight", "src/a.py:12", True),
        ("../ten/x", "b.sh:1", True),
        ("../eleven/1/x2.csv", "src/a.py:15", True),
        ("../twelve/", "src/a.py:16", False),
        ("../thirteen", "src/a.py:16", True),
    }
    assert not [one for one in found if any(word in one[0] for word in ("nothing", "six", "seven", "nine"))]


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.every_push("forkserver|process")
def test_variables_that_a_person_gives_win(here, where):
    train = """
    seen = os.environ
    assert [seen[name] for name in ("OMP_NUM_THREADS", "PYTHONHASHSEED", "MKL_NUM_THREADS")] == ["2", "7", "1"]
    assert hash("a") == int(seen["EXPECTED"]), hash("a")
    save(np.loadtxt(seen["FEDN_DATA_PATH"], delimiter=",") + float(seen["NUMBER"]), sys.argv[2])
    """
    write_client(here / "client", train)
    write_data(here / "d")
    words, environ = [sys.executable, "-c", "print(hash('a'))"], {**os.environ, "PYTHONHASHSEED": "7"}
    hashed = subprocess.run(words, env=environ, capture_output=True, check=True)
    given = ["environment.FEDN_DATA_PATH='{data_path}/x.csv'", "environment.NUMBER='{client_number}'"]
    given += ["environment.OMP_NUM_THREADS=2", "environment.PYTHONHASHSEED=7"]
    ended = run(*given, f"environment.EXPECTED={int(hashed.stdout)}", where=where)
    assert ended.code == 0, ended.err
    assert model() == [3, 4, 5]  # of the mean of 1 2 3 + 1 and 2 3 4 + 2
    assert data_line(ended) == "FEDN_DATA_PATH={data_path}/x.csv (as given)"
    line = (
        "given    FEDN_DATA_PATH={data_path}/x.csv, PYTHONHASHSEED=7, OMP_NUM_THREADS=2, in place of what fedpkg sets"
    )
    assert ended.err.count(line) == 1, ended.err
    assert "get the same data" not in ended.err


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("FEDPKG_SEED=1", "'FEDPKG_SEED' in 'environment' is reserved for fedpkg"),
        ("FEDPKG_MINE=1", "'FEDPKG_MINE' in 'environment' is reserved for fedpkg"),
        ("CUDA_VISIBLE_DEVICES=0", "'CUDA_VISIBLE_DEVICES' in 'environment' is set by fedpkg"),
        ("OMP_NUM_THREADS=many", "'OMP_NUM_THREADS' in 'environment' is 'many'"),
        ("PYTHONHASHSEED='{client_id}'", "'PYTHONHASHSEED' in 'environment' is '{client_id}'"),
    ],
)
def test_variables_that_fedpkg_sets_are_refused(here, key, message):
    write_client(here / "client", "save([1, 2, 3], sys.argv[2])")
    ended = fedpkg("run", "--package", "client", f"environment.{key}")
    assert ended.code != 0 and message in ended.err


def test_clients_that_all_get_the_same_data_are_told_of(here):
    write_client(
        here / "client", "save(np.loadtxt(os.environ.get('FEDN_DATA_PATH', 'own.csv'), delimiter=','), sys.argv[2])"
    )
    write_data(here / "d")
    (here / "client" / "own.csv").write_text("1,2,3")
    ended = run(f"environment.FEDN_DATA_PATH={here / 'client' / 'own.csv'}")
    about = "all 2 clients get the same data: "
    assert about + "environment.FEDN_DATA_PATH is the same for each; use {data_path} or {client_number}" in ended.err
    assert ended.err.index(about) < ended.err.index("round 1/1")
    ended = fedpkg("run", "--package", "client", "--rounds", "1", "executor.name=process")
    assert about + "none is set, so each reads the package's own (set it: --data)" in ended.err
    (here / "e").mkdir()
    for name in "ab":
        (here / "e" / name).symlink_to(here / "d" / "1" / "x.csv")
    ended = run(data="e/*")
    assert about + "all their paths lead to " in ended.err
    assert about not in run(data="d/*/x.csv").err
    assert about not in fedpkg("run", "--package", "client", "--clients", "1", "--rounds", "1").err


def test_inspection_explains_where_the_data_goes(here):
    write_client(here / "client", 'open("../data/x.csv"); open("/app/data/x.csv")')
    write_data(here / "d")
    ended = fedpkg("package", "inspect", "client", "--data", "d/*")
    assert ended.code == 0, ended.err
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert "links.../data . train.py:10 opens ../data/x.csv" in lines, ended.out
    assert "train.py:10 opens /app/data, which all clients would share" in ended.err
    told = fedpkg("package", "inspect", "client", "--data", "d/*", "--isolate", "--json").json()
    assert {way["name"]: way["value"] for way in told["data"]} == {"../data": ".", "/app/data": "."}
    assert told["data_missed"] == []


def test_pattern_that_is_one_level_too_high_is_explained_with_the_right_one(here):
    train = """save(np.loadtxt(os.environ["FEDN_DATA_PATH"] + "/x.csv", delimiter=","), sys.argv[2])"""
    write_client(here / "client", train)
    write_data(here / "data" / "clients")
    about = (
        "data/clients is given to one client, but it seems to hold a folder for each client: --data 'data/clients/*'"
    )
    for pattern in ("data/*", "data"):
        ended = run(data=pattern)
        assert ended.code != 0 and about in ended.err, ended.err
        assert ended.err.index(about) < ended.err.index("clients, round 1: ")
    assert "it seems to hold" not in run(data="data/clients/*").err
    (here / "data" / "labels.npz").touch()
    told = " ".join(run(data="data/*").err.split())
    assert "matches folders and files" in told and f"{here / 'data' / 'clients'}/* matches one folder for each" in told


def test_folder_that_holds_other_folders_is_one_clients_data_without_a_word(here):
    write_client(here / "client", "save([1, 2, 3], sys.argv[2])")
    for name in ("0", "1"):
        (here / "images" / name).mkdir(parents=True)
    ended = run(data="image*")
    assert ended.code == 0 and "it seems to hold" not in ended.err, ended.err
