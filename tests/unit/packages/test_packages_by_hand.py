"""The compute packages of this repository, called as commands, with nothing of fedpkg around them."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from warm import warm_python

REPOSITORY = Path(__file__).parents[3]
PACKAGES = REPOSITORY / "packages"
SEED_MODELS = REPOSITORY / "seed_models"


def call(package, entry_point, *words, data=None):
    """Run an entry point as the contract says: its command, words appended, in the folder of fedn.yaml.

    Its python is a process of the warm parent; "build" runs cold.
    """
    folder = PACKAGES / package
    command = yaml.safe_load((folder / "fedn.yaml").read_text())["entry_points"][entry_point]["command"]
    environ = {name: value for name, value in os.environ.items() if name != "FEDN_DATA_PATH"}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    if data is not None:
        environ["FEDN_DATA_PATH"] = str(data)
    line = " ".join([command, *(shlex.quote(str(word)) for word in words)])
    if entry_point != "build":
        line = f'python() {{ {shlex.join(warm_python())} "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environ, capture_output=True, text=True, timeout=100)


def call_ok(package, entry_point, *words, data=None):
    done = call(package, entry_point, *words, data=data)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "a client's földer"
    folder.mkdir()
    return folder


def made_images(shape, brightest):
    """Images of ten classes, each lit at pixels of its own, in the form of a client's file."""
    rng = np.random.default_rng(0)
    size = int(np.prod(shape))
    arrays = {}
    for part, count in [("train", 200), ("test", 50)]:
        y = np.arange(count) % 10
        lit = (np.arange(size) % 10)[None] == y[:, None]
        x = np.where(lit, brightest, 0) * rng.uniform(0.5, 1, (count, size))
        arrays[f"x_{part}"] = x.reshape(count, *shape).astype(np.uint8)
        arrays[f"y_{part}"] = y
    return arrays


def tensors(path):
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


# ---- digits


@pytest.mark.soak
@pytest.mark.slow
def test_digits_learns_what_is_in_the_clients_file(folder):
    data = folder / "data.npz"
    np.savez(data, **made_images((64,), brightest=16))
    done = call_ok("digits", "train", SEED_MODELS / "digits.npz", folder / "out.npz", "--epochs=10", data=data)
    assert "loss" in done.stdout
    metadata = json.loads((folder / "out.npz-metadata").read_text())
    assert {name: metadata[name] for name in ("num_examples", "batch_size", "epochs", "lr")} == {
        "num_examples": 200,
        "batch_size": 8,
        "epochs": 10,
        "lr": 0.1,
    }
    assert {name: (t.shape, t.dtype) for name, t in tensors(folder / "out.npz").items()} == {
        name: (t.shape, t.dtype) for name, t in tensors(SEED_MODELS / "digits.npz").items()
    }
    call_ok("digits", "validate", folder / "out.npz", folder / "out.json", f"--data_path={data}")
    metrics = json.loads((folder / "out.json").read_text())
    assert set(metrics) == {"training_loss", "training_accuracy", "test_loss", "test_accuracy", "num_examples"}
    assert metrics["num_examples"] == 50
    assert metrics["test_accuracy"] > 0.9
    call_ok("digits", "predict", folder / "out.npz", folder / "predictions", data=data)
    predictions = json.loads((folder / "predictions").read_text())["predictions"]
    assert np.mean(np.array(predictions) == np.arange(50) % 10) == pytest.approx(metrics["test_accuracy"])


@pytest.mark.slow
def test_digits_without_a_file_uses_those_of_scikit_learn(folder):
    call_ok("digits", "validate", SEED_MODELS / "digits.npz", folder / "out.json")
    assert json.loads((folder / "out.json").read_text())["num_examples"] == 360


@pytest.mark.slow
def test_digits_leaves_out_metrics_of_a_client_without_test_images(folder):
    arrays = made_images((64,), brightest=16)
    np.savez(folder / "data.npz", **{**arrays, "x_test": arrays["x_test"][:0], "y_test": arrays["y_test"][:0]})
    call_ok("digits", "validate", SEED_MODELS / "digits.npz", folder / "out.json", data=folder / "data.npz")
    assert set(json.loads((folder / "out.json").read_text())) == {"training_loss", "training_accuracy", "num_examples"}


# ---- mnist-mlp


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npz", ".pt"])
@pytest.mark.every_push(".pt")
def test_mnist_mlp_learns_from_either_kind_of_file(folder, suffix):
    arrays = made_images((28, 28), brightest=255)
    data = folder / f"mnist{suffix}"
    if suffix == ".npz":
        np.savez(data, **arrays)
    else:
        import torch

        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, data)
    arguments = [f"--data_path={data}", "--lr=0.1", "--epochs=10"]
    call_ok("mnist-mlp", "train", SEED_MODELS / "mnist-mlp.npz", folder / "out.npz", *arguments)
    assert json.loads((folder / "out.npz-metadata").read_text())["num_examples"] == 200
    call_ok("mnist-mlp", "validate", folder / "out.npz", folder / "out.json", data=data)
    assert json.loads((folder / "out.json").read_text())["test_accuracy"] > 0.9


@pytest.mark.slow
def test_mnist_mlp_without_data_says_what_file_it_wants(folder):
    done = call("mnist-mlp", "train", SEED_MODELS / "mnist-mlp.npz", folder / "out.npz")
    assert done.returncode == 1
    assert "expected a .pt or .npz file with x_train, y_train, x_test and y_test" in done.stderr
    assert "FEDN_DATA_PATH" in done.stderr


# ---- shell-mean


def write_table(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["a", "b", "c"], *rows])  # lines end in \r\n


def test_shell_mean_is_the_mean_of_the_columns(folder):
    rows = np.random.default_rng(0).normal(scale=[1e-7, 1, 1e12], size=(40, 3))
    write_table(folder / "data.csv", rows.tolist())
    call_ok("shell-mean", "build", folder / "seed.safetensors")
    call_ok("shell-mean", "train", folder / "seed.safetensors", folder / "out.safetensors", data=folder)
    mean = load_file(folder / "out.safetensors")["mean"]
    assert mean.dtype == np.float64
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-12)
    assert json.loads((folder / "out.safetensors-metadata").read_text()) == {"num_examples": 40}
    call_ok("shell-mean", "validate", folder / "out.safetensors", folder / "out.json", data=folder / "data.csv")
    metrics = json.loads((folder / "out.json").read_text())
    assert metrics["num_examples"] == 40
    assert metrics["squared_error"] == pytest.approx(((rows - mean) ** 2).sum(axis=1).mean())


def test_shell_mean_writes_numbers_exactly(folder):
    row = [0.1, -5e-324 * 2**60, 1.7976931348623157e308]
    write_table(folder / "data.csv", [row])
    call_ok("shell-mean", "train", SEED_MODELS / "shell-mean.safetensors", folder / "out", data=folder / "data.csv")
    assert load_file(folder / "out")["mean"].tolist() == row


def test_shell_mean_reads_models_that_others_wrote(folder):
    save_file({"mean": np.array([1.5, -2.0, 3.0])}, folder / "in.safetensors", metadata={"round": "3"})
    write_table(folder / "data.csv", [[1.5, 0, 3], [2.5, -2, 0]])
    call_ok("shell-mean", "validate", folder / "in.safetensors", folder / "out.json", data=folder / "data.csv")
    assert json.loads((folder / "out.json").read_text()) == {"squared_error": 7, "num_examples": 2}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ([1, "cold", 3], "line 3: not a number: cold"),
        ([1, "nan", 3], "line 3: not a number: nan"),
        ([1, "1e999", 3], "not finite: "),
        ([1, 2], "line 3: 2 columns, the model has 3"),
    ],
)
def test_shell_mean_refuses_rows_that_it_cannot_use(folder, row, complaint):
    write_table(folder / "data.csv", [[1, 2, 3], row])
    done = call("shell-mean", "train", SEED_MODELS / "shell-mean.safetensors", folder / "out", data=folder)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert not (folder / "out-metadata").exists()


# ---- seed models and lessons


@pytest.mark.slow
@pytest.mark.parametrize("package", ["digits", "mnist-mlp"])
@pytest.mark.every_push("digits")
def test_seed_models_are_what_their_packages_build(folder, package):
    call_ok(package, "build", folder / "seed.npz", "--seed=0")
    made, kept = tensors(folder / "seed.npz"), tensors(SEED_MODELS / f"{package}.npz")
    assert list(made) == list(kept)
    for name in made:
        np.testing.assert_array_equal(made[name], kept[name])


def test_the_seed_model_of_shell_mean_is_what_it_builds(folder):
    call_ok("shell-mean", "build", folder / "seed", "--columns=3")
    assert (folder / "seed").read_bytes() == (SEED_MODELS / "shell-mean.safetensors").read_bytes()


def test_the_first_lesson_shows_its_files_as_they_are():
    lesson = REPOSITORY / "examples" / "first-package"
    blocks = re.findall(r"^```(?:yaml|python)\n(.*?)^```", (lesson / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert blocks == [(lesson / name).read_text() for name in ("client/fedn.yaml", "client/entrypoint.py", "run.yaml")]
