"""``fedpkg data partition`` and ``describe``, and runs whose clients have references, attributes and tables."""

import json

import numpy as np
import pytest
from cli_support import fedpkg

from fedpkg.cli.report import failure_lines
from fedpkg.client import open_data
from fedpkg.data.described import split_charts

TRAINS = """
import json, os, sys
import numpy as np
from fedpkg import client

def build(out):
    np.savez(out, w=np.zeros(3, np.float32))

def train(source, out, lr=0.0, device=""):
    data = client.open_data()
    print(f"lr {lr} on a {device}")
    with np.load(source) as model:
        w = model["w"] + float(lr) * data["x_train"].mean(axis=0).astype(np.float32)
    np.savez(out, w=w)
    with open(out + "-metadata", "w") as file:
        json.dump({"num_examples": len(data["y_train"])}, file)

def validate(source, out):
    data = client.open_data()
    with open(out, "w") as file:
        json.dump({"n": len(data["y_test"]), "lr": 1.0}, file)

if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    paths = [word for word in rest if not word.startswith("--")]
    options = dict(word[2:].split("=", 1) for word in rest if word.startswith("--"))
    globals()[name](*paths, **options)
"""
SPEC = "entry_points:\n" + "".join(
    f"  {name}:\n    command: python main.py {name}\n" for name in ("build", "train", "validate")
)


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        f"{a:.3f},{b:.3f},{c:.3f},{label}" for (a, b, c), label in zip(rng.random((60, 3)), "xyz" * 20, strict=True)
    ]
    path = tmp_path / "people ü.csv"
    path.write_text("a,b,c,kind\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "main.py").write_text(TRAINS)
    (folder / "fedn.yaml").write_text(SPEC)
    return folder


def test_a_dataset_is_split_into_a_folder_and_described(tmp_path, here):
    words = ("data", "partition", "sklearn/digits", "--by", "dirichlet", "alpha=0.3", "--clients", "4", "-o", "parts")
    made = fedpkg(*words)
    assert made.code == 0, made.err
    assert "4 files in parts" in made.err
    assert "scheme    dirichlet (alpha 0.3)\n" in made.out and "clients   4\n" in made.out
    assert sorted(path.name for path in (here / "parts").iterdir()) == [
        *(f"{k}.npz" for k in range(4)),
        "partition.json",
    ]
    assert "(there already)" in fedpkg(*words).err
    document = fedpkg("data", "describe", "parts", "--json").json()[0]
    assert document["statistics"]["examples"] == 1438
    assert sum(map(sum, document["counts"]["test"])) == 359
    again = fedpkg(*words[:5], "alpha=0.4", *words[6:])
    assert again.code == 6 and "it contains another split" in again.err


def test_several_splits_are_compared_and_drawn(tmp_path, here):
    for name, more in (("even", ()), ("skewed", ("--by", "pathological", "classes_per_client=2"))):
        made = fedpkg("data", "partition", "sklearn/iris", *more, "--clients", "3", "-o", name)
        assert made.code == 0, made.err
    compared = fedpkg("data", "describe", "even", "skewed", "--picture", "both.html")
    assert compared.code == 0, compared.err
    head, *rows = compared.out.splitlines()
    assert head.split() == [
        "split",
        "scheme",
        "clients",
        "examples",
        "smallest",
        "median",
        "largest",
        "labels/client",
        "distance",
    ]
    assert [row.split()[0] for row in rows] == ["even", "skewed"]
    page = (here / "both.html").read_text()
    assert all(words in page for words in ("labels by client", "client × label", "sizes of the clients"))
    fedpkg("data", "describe", "even", "--picture", "one.svg")
    assert (here / "one.svg").read_text().lstrip().startswith("<?xml")
    wrong = fedpkg("data", "describe", "even", "--picture", "one.gif")
    assert wrong.code == 3 and "a picture cannot have the suffix '.gif'" in wrong.err


def test_an_inner_scheme_is_named_as_a_scheme(here):
    words = ("--by", "rotation", "angles=[0,90]", "inner={name: shards, shards_per_client: 2}", "--clients", "3")
    made = fedpkg("data", "partition", "sklearn/digits", *words, "-o", "turned")
    assert made.code == 0, made.err
    assert "inner shards (shards_per_client 2, keep_incomplete True))\n" in made.out


def test_stacked_bars_are_drawn_for_labels_that_have_colours():
    counts = [[1] * 21, [2] * 21]
    many = list(split_charts(["a", "b"], [21, 42], range(21), counts))
    few = list(split_charts(["a", "b"], [20, 40], range(20), [row[:20] for row in counts]))
    assert [type(chart).__name__ for chart in many] == ["HeatMap", "Histogram"]
    assert [type(chart).__name__ for chart in few] == ["BarChart", "HeatMap", "Histogram"]


def test_a_table_is_split_with_parts_within_clients(table, here):
    made = fedpkg("data", "partition", table, "source.label=kind", "within.test=0.2", "--clients", "3", "-o", "parts")
    assert made.code == 0, made.err
    assert "within    test 0.2\n" in made.out
    arrays = open_data(here / "parts" / "1.npz")
    assert (arrays["x_train"].shape, arrays["y_test"].shape) == ((16, 3), (4,))
    with open(here / "parts" / "partition.json") as file:
        assert json.load(file)["labels"] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("no.csv",), 6, "no such file"),
        (("people.csv", "source.lable=kind"), 3, "unknown key 'lable' in 'clients.data.dataset'; did you mean 'label'"),
        (("sklearn/iris", "--by", "dirichlt"), 3, "there is no partitioner 'dirichlt'; did you mean 'dirichlet'"),
        (("sklearn/iris", "alph=1", "--by", "dirichlet"), 3, "unknown key 'alph'"),
        (("sklearn/iris", "form=refs"), 3, "'form' must be 'files' or 'references'"),
        (("sklearn/iris", "within.test=2"), 3, "'within.test' must be a number above 0, below 1"),
        (("sklearn/irish",), 3, "there is no dataset 'sklearn/irish'; did you mean 'sklearn/iris'"),
        (("sklearn/iris", "what"), 3, "'what' is not key=value"),
    ],
)
def test_wrong_words_are_refused(here, words, code, message):
    ended = fedpkg("data", "partition", *words, "--clients", "3", "-o", "parts")
    assert (ended.code, message in ended.err) == (code, True), ended.err
    assert not (here / "parts").exists()


def test_the_number_of_clients_is_asked_for(here):
    ended = fedpkg("data", "partition", "sklearn/iris", "-o", "parts")
    assert ended.code == 6 and "the number of clients is not known" in ended.err
    assert "set --clients" in ended.err


def test_a_hint_names_the_options_of_the_command_and_not_the_keys_of_a_run_yaml(here):
    words = ("--by", "iid", "min_examples=100", "--clients", "50", "-o", "parts")
    ended = fedpkg("data", "partition", "sklearn/iris", *words)
    assert ended.code == 6
    assert "lower --clients (now 50) or min_examples (now 100)" in ended.err


def run(folder, package, clients, *words):
    config = {
        "package": str(package),
        "rounds": 2,
        "clients": clients,
        "executor": {"name": "forkserver", "workers": 1},
        "arguments": {"train": {"lr": 0.5}},
    }
    (folder / "run.yaml").write_text(json.dumps(config))
    return fedpkg("run", folder / "run.yaml", "--home", folder / "home", "--json", *words)


@pytest.mark.slow
def test_files_references_and_isolated_tasks_give_the_same_model_and_a_changed_table_is_refused(
    tmp_path, table, package
):
    data = {"dataset": {"name": "csv", "path": str(table), "label": "kind"}, "within": {"test": 0.2}}
    models = []
    for form, words in (("files", ()), ("references", ()), ("references", ("isolate.enabled=true",))):
        ended = run(tmp_path, package, {"count": 3, "data": {**data, "form": form}}, *words)
        assert ended.code == 0, ended.err
        models.append(fedpkg("model", "list", "--home", tmp_path / "home", "--json").json()[-1]["digest"])
    assert len(set(models)) == 1
    session = fedpkg("session", "list", "--home", tmp_path / "home", "--json").json()[0]["session_id"]
    table.write_text(table.read_text() + "1,2,3,x\n")
    refused = fedpkg("session", "resume", session, "--rounds", "3", "--home", tmp_path / "home")
    assert refused.code == 6
    assert "has changed since the session began: its digest was sha256:" in refused.err


@pytest.mark.parametrize("loads", ["np.load", "torch.load"])
def test_a_package_that_cannot_read_references_is_told_to_get_files(tmp_path, package, loads):
    trains = TRAINS.replace("client.open_data()", f"{loads}(os.environ['FEDN_DATA_PATH'])")
    (package / "main.py").write_text("import torch\n" + trains.replace("np.zeros(3,", "np.zeros(4,"))
    ended = run(tmp_path, package, {"count": 1, "data": {"dataset": "sklearn/iris", "form": "references"}}, "rounds=1")
    events = [json.loads(line) for line in ended.out.splitlines()]
    (failed,) = [event for event in events if event.get("event") == "task_failed"]
    assert failed["failure"] == "exit_code" and "pickle" in failed["log_tail"]
    assert "its data is a reference" in failed["message"] and "set clients.data.form to files" in failed["message"]


@pytest.mark.slow
def test_clients_get_arguments_by_their_attributes_and_resume_needs_the_same_entities(tmp_path, package):
    entities = tmp_path / "entities.csv"
    entities.write_text("id,device,rate\na,phone,0.25\nb,server,0.5\n")
    clients = {"entities": str(entities), "data": {"dataset": "sklearn/iris"}, "groups": {"phones": ["device=phone"]}}
    (package / "main.py").write_text(TRAINS.replace("np.zeros(3,", "np.zeros(4,"))
    words = ("arguments.train.lr='{attributes.rate}'", "arguments.train.device='{attributes.device}'")
    ended = run(tmp_path, package, clients, *words)
    assert ended.code == 0, ended.err
    session = fedpkg("session", "list", "--home", tmp_path / "home", "--json").json()[0]["session_id"]
    logs = {path.parts[-3]: path.read_text() for path in (tmp_path / "home").rglob("train/stdout.log")}
    assert logs == {"a": "lr 0.25 on a phone\n", "b": "lr 0.5 on a server\n"}
    entities.write_text("id,device,rate\na,phone,0.25\nb,server,0.6\n")
    refused = fedpkg("session", "resume", session, "--rounds", "3", "--home", tmp_path / "home")
    assert refused.code == 6 and "has changed since the session began" in refused.err


def test_a_failed_task_shows_both_digests_of_a_source_that_has_changed(tmp_path):
    message = f"d.npz: its digest was sha256:{'a' * 64} and is now sha256:{'b' * 64}"
    tail = f"Traceback\nfedpkg.client.errors.ClientError: {message}\n  hint  restore it, or start a new run\n"
    facts = {"package": "p", "entry_point": "train", "arguments": {}, "isolated": False}
    lines = failure_lines("client-0", "'train' exited with code 1", folder=tmp_path, log_tail=tail, **facts)
    assert any("a" * 64 in line and "b" * 64 in line for line in lines), lines
