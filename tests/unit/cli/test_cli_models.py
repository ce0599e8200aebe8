"""``fedpkg model`` and ``validation``: what a finished session has left."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_support import MISBEHAVE, fedpkg, write_run_yaml
from safetensors.torch import save_file

from fedpkg.formats.metadata import read_metadata
from fedpkg.formats.model_file import read_model, read_seed_model


@pytest.fixture
def home(finished, here):
    return finished[0]


def test_model_list_and_trail_name_the_models_in_order(home):
    listed = fedpkg("model", "list", "--home", home, "--json").json()
    assert [model["round_number"] for model in listed] == [0, 1, 2]
    trail = fedpkg("model", "trail", "latest", "--home", home, "--json").json()
    assert trail == listed[::-1]
    assert [part["client_id"] for part in trail[0]["contributors"]] == ["client-0", "client-2"]
    assert fedpkg("model", "list", "--all", "--home", home).out.count("3 clients") == 1


@pytest.fixture
def measured(finished, here):
    """A home whose rounds have these metrics; its clock was set back before the second round."""
    shutil.copytree(finished[0], here / "uppmätt", symlinks=True)
    metrics = [{"accuracy": 0.9, "val_loss": 0.5, "score": 1}, {"accuracy": 0.7, "val_loss": 0.25, "score": 1}]
    with closing(sqlite3.connect(here / "uppmätt" / "state.db")) as connection, connection:
        for number, values in enumerate(metrics, 1):
            connection.execute("update rounds set metrics = ? where round_number = ?", (json.dumps(values), number))
        connection.execute("update models set created_at = 1.0 where round_number = 2")
    return here / "uppmätt"


def test_model_list_shows_metrics_in_the_order_of_rounds_whatever_the_clock_said(measured):
    lines = fedpkg("model", "list", "--home", measured).out.splitlines()
    assert lines[0].split()[-4:] == ["accuracy", "val_loss", "score", "size"]
    assert [line.split()[0].rpartition(".")[2] for line in lines[1:]] == ["0", "1", "2"]
    assert "0.9" in lines[2]
    assert "0.25" in lines[3]
    listed = fedpkg("model", "list", "--home", measured, "--json").json()
    assert [model["metrics"].get("accuracy") for model in listed] == [None, 0.9, 0.7]


@pytest.mark.parametrize(
    ("words", "round_number"),
    [
        (["accuracy"], 1),
        (["accuracy", "--lowest"], 2),
        (["val_loss"], 2),
        (["val_loss", "--highest"], 1),
        (["score"], 1),  # both have the same: the earlier
        (["accuracy", "--all"], 1),
    ],
)
def test_best_model_by_a_metric(measured, words, round_number):
    (best,) = fedpkg("model", "list", "--best", *words, "--home", measured, "--json").json()
    assert best["round_number"] == round_number


def test_best_of_a_metric_that_nobody_measured_says_which_there_are(measured):
    ended = fedpkg("model", "list", "--best", "acuracy", "--home", measured)
    assert "no model has a finite value of 'acuracy'; did you mean 'accuracy'?" in ended.err
    assert "accuracy, val_loss, score" in ended.err
    assert fedpkg("model", "list", "--lowest", "--home", measured).code == 2


@pytest.mark.parametrize("name", ["model.npz", "my model.safetensors"])
def test_exported_models_are_the_same_in_either_format(name, home, here):
    ended = fedpkg("model", "export", "latest.1", "-o", name, "--home", home)
    assert ended.code == 0
    diff = fedpkg("model", "diff", name, "latest.1", "--home", home)
    assert diff.out.endswith("bit-identical\n")
    assert read_model(here / name)["w"].shape == (10, 32)


def test_export_does_not_overwrite_without_force(home, here):
    (here / "model.npz").write_text("precious")
    ended = fedpkg("model", "export", "-o", "model.npz", "--home", home)
    assert ended.code == 5
    assert "--force" in ended.err
    assert (here / "model.npz").read_text() == "precious"
    assert fedpkg("model", "export", "-o", "model.npz", "--force", "--home", home).code == 0
    assert read_model(here / "model.npz")


@pytest.mark.parametrize("keys", ["names", "positions"])
def test_exported_models_know_their_buffers_when_they_are_seeds_again(keys, here):
    model = {"ema": np.ones(3, np.float32), "w": np.ones((10, 32), np.float32), "steps": np.array(0)}
    if keys == "positions":
        model = {str(number): array for number, array in enumerate(model.values())}
    buffers = list(model)[::2]
    np.savez("seed.npz", **model)
    (here / "seed.npz-metadata").write_text(json.dumps({"buffers": buffers}))
    package = here / "copies"
    package.mkdir()
    (package / "fedn.yaml").write_text("entry_points:\n  train:\n    command: sh train.sh\n")
    (package / "train.sh").write_text('cp "$1" "$2" && echo \'{"num_examples": 1}\' > "$2-metadata"\n')
    write_run_yaml(here, package=str(package), seed_model="seed.npz", rounds=1)
    assert fedpkg("run", "run.yaml").code == 0
    exported = ["runde 1.npz", "runde 1.safetensors"]
    for name in exported:
        ended = fedpkg("model", "export", "latest", "-o", name, "--json")
        assert ended.code == 0, ended.err
        assert ended.json()["buffers"] == buffers
        assert set(read_seed_model(here / name)[0].buffers) == set(buffers)
    for name in exported:
        write_run_yaml(here, package=str(package), seed_model=name, rounds=1)
        assert fedpkg("run", "run.yaml").code == 0
        models = fedpkg("model", "list", "--json").json()
        assert [row["buffers"] for row in models] == [buffers, buffers]
        assert {row["suffix"] for row in models} == {Path(name).suffix}


def test_exported_model_without_buffers_has_none_when_it_is_a_seed_again(home, here):
    (here / "model.npz-metadata").write_text('{"buffers": ["of another model"]}')
    ended = fedpkg("model", "export", "-o", "model.npz", "--home", home)
    assert (ended.code, "model.npz-metadata exists already" in ended.err) == (5, True)
    assert not (here / "model.npz").exists()
    assert fedpkg("model", "export", "-o", "model.npz", "--force", "--home", home).code == 0
    assert read_metadata(here / "model.npz") == {"buffers": []}
    assert fedpkg("model", "seed", MISBEHAVE, "-o", "model.npz", "--force").code == 0
    assert sorted(path.name for path in here.iterdir()) == ["model.npz"], "what another model's metadata said is gone"


def test_export_refuses_other_formats(home):
    ended = fedpkg("model", "export", "-o", "model.pt", "--home", home)
    assert ended.code == 5
    assert ".npz or .safetensors" in ended.err


def test_diff_measures_each_tensor(home):
    document = fedpkg("model", "diff", "latest.1", "latest.2", "--home", home, "--json").json()
    assert not document["identical"]
    w = next(row for row in document["tensors"] if row["name"] == "w")
    assert w["max_abs"] == pytest.approx(1.0, rel=1e-6)
    assert w["what"] == "differs"


def test_diff_reports_another_structure(here):
    np.savez("a.npz", w=np.zeros((2, 3)), only_a=np.ones(1), dtype=np.ones(1, np.float32))
    np.savez("b.npz", w=np.zeros((3, 2)), only_b=np.ones(1), dtype=np.ones(1, np.float64))
    rows = fedpkg("model", "diff", "a.npz", "b.npz", "--json").json()["tensors"]
    assert {row["name"]: row["what"] for row in rows} == {
        "w": "shapes differ",
        "only_a": "only in A",
        "dtype": "dtypes differ",
        "only_b": "only in B",
    }
    assert "4 of 4 tensors differ" in fedpkg("model", "diff", "a.npz", "b.npz").out


def test_diff_sees_that_names_and_positions_can_hold_the_same_model(here):
    np.savez("names.npz", w=np.arange(6.0), b=np.zeros(2))
    np.savez("positions.npz", **{"0": np.arange(6.0), "1": np.zeros(2)})
    assert "bit-identical" in fedpkg("model", "diff", "names.npz", "positions.npz").out


def test_diff_of_empty_and_nan_tensors(here):
    np.savez("a.npz", empty=np.zeros((0, 3)), w=np.array([np.nan, 1.0]))
    np.savez("b.npz", empty=np.zeros((0, 3), np.float32), w=np.array([0.0, 1.0]))
    ended = fedpkg("model", "diff", "a.npz", "b.npz")
    assert ended.code == 0
    assert "nan" in ended.out


def test_an_unknown_model_has_exit_code_7_and_a_missing_file_5(home):
    assert fedpkg("model", "trail", "nobody", "--home", home).code == 7
    assert fedpkg("model", "diff", "gone.npz", "latest", "--home", home).code == 5


def test_seed_is_repeatable_and_goes_to_the_format_of_the_name(here):
    assert fedpkg("model", "seed", MISBEHAVE, "-o", "a.npz").code == 0
    assert fedpkg("model", "seed", MISBEHAVE, "-o", "b.safetensors").code == 0
    assert fedpkg("model", "diff", "a.npz", "b.safetensors", "--json").json()["identical"]
    assert fedpkg("model", "seed", MISBEHAVE, "-o", "a.npz").code == 5


def test_a_model_that_npz_cannot_hold_is_refused_with_its_reason(here):
    package = here / "bf16"
    package.mkdir()
    (package / "fedn.yaml").write_text("entry_points:\n  build:\n    command: cp model.safetensors\n")
    save_file({"w": torch.zeros(2, dtype=torch.bfloat16)}, package / "model.safetensors")
    ended = fedpkg("model", "seed", package, "-o", "model.npz")
    assert ended.code == 5
    assert "bfloat16" in ended.err
    assert not (here / "model.npz").exists()
    assert fedpkg("model", "seed", package, "-o", "model.safetensors").code == 0


BF16 = """
import sys, torch
from fedpkg import client
client.save(sys.argv[1], torch.nn.Linear(2, 1).to(torch.bfloat16))
"""


@pytest.mark.soak
@pytest.mark.slow
def test_seed_asks_build_for_the_form_of_the_name(here):
    """A package that writes what it is asked for, one that names its own file, and one that always writes npz."""
    package = here / "by suffix"
    package.mkdir()
    (package / "main.py").write_text(BF16)
    spec = package / "fedn.yaml"
    spec.write_text("entry_points: {build: {command: python main.py}}")
    assert fedpkg("model", "seed", package, "-o", "model.safetensors").code == 0
    ended = fedpkg("model", "seed", package, "-o", "model.npz")
    assert ended.code == 8 and "an .npz file cannot hold torch.bfloat16, a .safetensors file can" in ended.err
    assert "command: python main.py build seed.safetensors" in ended.err and not (here / "model.npz").exists()
    spec.write_text("entry_points: {build: {command: python main.py ../init_model.safetensors}}")
    assert fedpkg("model", "seed", package, "-o", "named.safetensors").code == 0
    (package / "main.py").write_text("import sys, numpy\nnumpy.savez(sys.argv[1], w=numpy.zeros(2))")
    spec.write_text("entry_points: {build: {command: python main.py}}")
    assert fedpkg("model", "seed", package, "-o", "of npz.safetensors").code == 0
    assert fedpkg("model", "seed", package, "-o", "of npz.npz").code == 0
    assert fedpkg("model", "diff", "of npz.npz", "of npz.safetensors", "--json").json()["identical"]


def test_validation_list_shows_who_measured_what(home):
    ended = fedpkg("validation", "list", "--round", "2", "--home", home)
    assert ended.out.splitlines()[0].split() == ["round", "client", "w_mean", "steps", "weight", "from"]
    assert ended.out.splitlines()[1].split() == ["2", "client-0", "2.045", "2", "10", "reply"]
    rows = fedpkg("validation", "list", "--client", "client-1", "--home", home, "--json").json()
    assert [(row["round_number"], row["metrics"]["steps"]) for row in rows] == [(1, 1), (2, 2)]
    unknown = fedpkg("validation", "list", "--client", "client-9", "--home", home)
    assert unknown.code == 7
    assert "did you mean 'client-" in unknown.err
