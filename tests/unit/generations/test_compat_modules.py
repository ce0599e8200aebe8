"""FEDn's helpers, as packages find them where FEDn is not installed: paths of import, file forms, arithmetic."""

from __future__ import annotations

import importlib
import json
import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RUNTIME = Path(__file__).resolve().parents[3] / "fedpkg" / "runtime"
SEVEN = (
    *("numpyhelper", "pytorchhelper", "kerashelper", "numpyarrayhelper"),
    *("binaryhelper", "androidhelper", "splitlearninghelper"),
)
ARRAYS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(1.5), np.array([1, 2], np.int64)]


@pytest.fixture(autouse=True)
def compat(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(RUNTIME / "compat"))
    yield
    for name in [
        name for name in sys.modules if name.partition(".")[0] in ("fedn", "scaleout", "scaleoututil", "docker")
    ]:
        del sys.modules[name]


def helper(name: str) -> Any:
    return importlib.import_module("fedn.utils.helpers.helpers").get_helper(name)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("fedn", "__version__"),
        ("fedn.utils.helpers", "get_helper save_metadata load_metadata save_metrics"),
        ("fedn.utils.helpers.helpers", "get_helper save_metadata load_metadata save_metrics"),
        ("fedn.utils.helpers.helperbase", "HelperBase"),
        *((f"fedn.utils.helpers.plugins.{name}", "Helper") for name in SEVEN),
        *((f"fedn.utils.plugins.{name}", "Helper") for name in ("pytorchhelper", "kerashelper", "numpyarrayhelper")),
        ("fedn.utils.plugins.helperbase", "HelperBase"),
        ("fedn.utils.pytorchhelper", "PytorchHelper"),
        ("fedn.utils.kerashelper", "KerasHelper"),
        ("fedn.utils.numpyarrayhelper", "NumpyArrayHelper"),
        ("fedn.utils.numpymodel", "NumpyHelper"),
        ("fedn.utils.kerasweights", "KerasWeightsHelper"),
        ("fedn.utils.kerassequential", "KerasSequentialHelper"),
        ("fedn.common.log_config", "logger"),
        ("fedn.network.combiner.hooks.allowed_import", "np Dict List Tuple random ServerFunctionsBase logger"),
        ("fedn.network.combiner.hooks.serverfunctionsbase", "ServerFunctionsBase"),
        ("fedn", "FednClient"),
        ("fedn.network.clients.fedn_client", "FednClient ConnectToApiResult GrpcConnectionOptions"),
        ("fedn.utils.model", "FednModel"),
        ("scaleout", "EdgeClient FednClient ScaleoutModel"),
        ("scaleout.utils.helpers.helpers", "get_helper save_metadata load_metadata save_metrics"),
        ("scaleout.network.clients.fedn_client", "FednClient ConnectToApiResult"),
        ("scaleout.network.combiner.hooks.allowed_import", "np Dict ServerFunctionsBase"),
        ("scaleout.client.edge_client", "EdgeClient ConnectToApiResult GrpcConnectionOptions"),
        ("scaleoututil.utils.model", "ScaleoutModel"),
        ("scaleoututil.logging", "ScaleoutLogger FednLogger"),
        ("fedn.network.combiner.aggregators.aggregatorbase", "AggregatorBase"),
        ("scaleoututil.helpers.helpers", "get_helper save_metadata load_metadata save_metrics"),
    ],
)
def test_every_path_of_import_works(module: str, names: str) -> None:
    for name in names.split():
        assert getattr(importlib.import_module(module), name) is not None


def test_helper_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"'numpy_helper'; its helpers are: numpyhelper, .*"):
        helper("numpy_helper")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("from fedn import APIClient; APIClient('host', 8092)", "APIClient cannot be used here: a task has no server"),
        (
            "from fedn.network.api.client import APIClient; APIClient()",
            "`fedpkg exec SCRIPT.py` runs scripts",
        ),
        ("from scaleout import Scaleout; Scaleout(host='x')", "Scaleout cannot be used here: a task has no server"),
        ("from scaleoututil.api.client import APIClient; APIClient()", "a task has no server"),
        ("import scaleout; scaleout.Other", "no 'Other' here: .* EdgeClient, FednClient, .* of it"),
        ("import fedn; fedn.Other", "no 'Other' here: fedpkg runs this package without FEDn's network"),
        ("from fedn.dashboard.plots import Plot; Plot()", "needs the database of FEDn's server"),
        ("from fedn.network.clients.client import Client; Client({})", "it connects to a combiner"),
        ("from scaleoututil.utils.model import ScaleoutModelBuilder", "has no ScaleoutModelBuilder: a callback may"),
        ("from scaleout.client.importer_client import ImporterClient", "imports the package's startup.py by itself"),
        ("import fedn.utils.kerassequential as k; k.KerasSequentialHelper()", r"\.h5.*KerasHelper"),
        ("import fedn.utils.flowercompat.client_app_adapter", "needs FEDn itself"),
        ("import docker; docker.DockerClient()", "a task of fedpkg has no Docker"),
        ("import docker; docker.from_env().images", "a task of fedpkg has no Docker"),
        ("import docker; docker.from_env().containers.list()", "a task of fedpkg has no Docker"),
        ("import docker; docker.from_env().containers.get('x').attrs", "a task of fedpkg has no Docker"),
        ("import docker; docker.from_env().containers.get('x').name", "not a task of fedpkg"),
    ],
)
def test_what_is_not_there_says_so(words: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDPKG_TASK", raising=False)
    with pytest.raises(Exception, match=error):
        exec(words, {})


def test_container_has_the_number_of_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "task.json").write_text(json.dumps({"partition_id": 6}))
    monkeypatch.setenv("FEDPKG_TASK", str(tmp_path / "task.json"))
    client = importlib.import_module("docker").from_env()
    assert client.containers.get("0123abc").name == "client_7"


# ---- file forms


def test_lists_are_npz_files_under_their_positions(tmp_path: Path) -> None:
    for name in ("numpyhelper", "kerashelper"):
        path = str(tmp_path / f"{name} ü.npz")
        assert helper(name).save(ARRAYS, path) == path
        with np.load(path) as found:
            assert found.files == ["0", "1", "2"]
        for array, expected in zip(helper(name).load(path), ARRAYS, strict=True):
            assert array.dtype == expected.dtype and np.array_equal(array, expected) and array.shape == expected.shape
    np.savez_compressed(tmp_path / "compressed.npz", **{"0": ARRAYS[0]})  # type: ignore[arg-type]
    with open(tmp_path / "compressed.npz", "rb") as file:
        assert np.array_equal(helper("numpyhelper").load(file)[0], ARRAYS[0])


def test_dictionaries_keep_their_names_and_order(tmp_path: Path) -> None:
    model = {"z.weight": ARRAYS[0], "a.bias": ARRAYS[1], "file": ARRAYS[2]}
    helper("pytorchhelper").save(model, tmp_path / "m.npz")
    assert list(helper("pytorchhelper").load(tmp_path / "m.npz")) == list(model)
    with pytest.raises(KeyError, match="pytorchhelper"):
        helper("numpyhelper").load(tmp_path / "m.npz")


def test_name_without_suffix_is_what_numpy_makes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert helper("numpyhelper").save(ARRAYS, "foo") == "foo"
    helper("splitlearninghelper").save({"client 1": ARRAYS[0]}, "bar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bar", "foo.npz"]
    assert np.array_equal(helper("splitlearninghelper").load("bar")["client 1"], ARRAYS[0])


def test_bare_forms_are_the_bytes_of_the_time(tmp_path: Path) -> None:
    vector = np.array([0.1, -2.0, 3.5])
    path = str(tmp_path / "m.bin")
    helper("binaryhelper").save([vector[:1], vector[1:].reshape(2, 1)], path)
    assert Path(path).read_bytes() == vector.tobytes()
    assert np.array_equal(helper("binaryhelper").load(path), vector)
    assert np.array_equal(helper("numpyhelper").load(path, "raw_binary"), vector)
    helper("binaryhelper").save([vector.astype(np.float32)], path)  # as FEDn read it, that was garbage
    assert np.array_equal(helper("binaryhelper").load(path), vector.astype(np.float32))
    helper("androidhelper").save(vector, path)
    assert Path(path).read_bytes() == struct.pack("fff", *vector)
    assert helper("androidhelper").load(path).dtype == np.float64
    helper("numpyarrayhelper").save(vector, path)
    assert np.array_equal(np.loadtxt(path), vector)
    assert np.array_equal(helper("numpyarrayhelper").load(path), vector)


def test_old_classes_have_their_methods(tmp_path: Path) -> None:
    for module, name, model in (
        ("pytorchhelper", "PytorchHelper", {"w": ARRAYS[0]}),
        ("kerashelper", "KerasHelper", ARRAYS),
        ("numpyarrayhelper", "NumpyArrayHelper", ARRAYS[0]),
    ):
        old = getattr(importlib.import_module(f"fedn.utils.{module}"), name)()
        path = old.get_tmp_path()
        try:
            assert old.save_model(model, path) == path
            again = old.load_model(path)
            for found in (again, old.load_model_from_BytesIO(old.serialize_model_to_BytesIO(model).getvalue())):
                np.testing.assert_equal(found, model)
        finally:
            os.unlink(path)


def test_objects_are_never_pickled(tmp_path: Path) -> None:
    for name, model in (("numpyhelper", [np.array([{}])]), ("pytorchhelper", {"w": np.array([{}])})):
        with pytest.raises(ValueError, match="Object arrays"):
            helper(name).save(model, str(tmp_path / "m.npz"))


def test_metadata_and_metrics_lie_where_fedn_put_them(tmp_path: Path) -> None:
    functions = importlib.import_module("fedn.utils.helpers.helpers")
    out = str(tmp_path / "out model.npz")
    functions.save_metadata({"num_examples": 3}, out)
    assert json.loads((tmp_path / "out model.npz-metadata").read_text()) == {"num_examples": 3}
    assert functions.load_metadata(out) == {"num_examples": 3}
    functions.save_metrics({"loss": 0.5}, tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"loss": 0.5}


# ---- arithmetic


def test_averages_are_weighted_means() -> None:
    models = [[np.array([float(k), 2.0 * k]), np.array(k, np.float32)] for k in range(1, 5)]
    examples = [3, 1, 4, 2]
    for name in ("numpyhelper", "kerashelper"):
        mean, total = models[0], examples[0]
        for model, n in zip(models[1:], examples[1:], strict=True):
            total += n
            mean = helper(name).increment_average(mean, model, n, total)
        expected = sum(n * model[0] for n, model in zip(examples, models, strict=True)) / total
        np.testing.assert_allclose(mean[0], expected)
        assert mean[1].dtype == np.float32
    for name in ("binaryhelper", "androidhelper", "numpyarrayhelper"):
        assert helper(name).increment_average(np.zeros(2), np.full(2, 4.0), 1, 4).tolist() == [1.0, 1.0]
    named = helper("pytorchhelper").increment_average({"w": np.zeros(2)}, {"w": np.full(2, 4.0)}, 1, 4)
    assert named["w"].tolist() == [1.0, 1.0]
    old = importlib.import_module("fedn.utils.numpymodel").NumpyHelper()
    assert old.increment_average(np.ones(1), np.full(1, 4.0), 3).tolist() == [2.0]


def test_averages_neither_overflow_nor_wrap_nor_broadcast() -> None:
    numpyhelper = helper("numpyhelper")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half = numpyhelper.increment_average([np.ones(2, np.float16)], [np.full(2, 3.0, np.float16)], 60_000, 120_000)
    assert half[0].tolist() == [2.0, 2.0] and half[0].dtype == np.float16
    assert numpyhelper.increment_average([np.array([200], np.uint8)], [np.array([100], np.uint8)], 1, 2)[0] == 150
    for other in ([np.zeros((1, 3))], [np.zeros((2, 1)), np.zeros(1)]):
        with pytest.raises(ValueError, match="the models differ"):
            numpyhelper.increment_average([np.zeros((2, 1))], other, 1, 2)


def test_algebra_of_the_numpyhelper() -> None:
    h, x, y = helper("numpyhelper"), [np.array([4.0, -9.0])], [np.array([2.0, 3.0])]
    assert h.add(x, y)[0].tolist() == [6.0, -6.0]
    assert h.add(x, y, 2, 0.5)[0].tolist() == [9.0, -16.5]
    assert h.subtract(x, y)[0].tolist() == [2.0, -12.0]
    assert h.multiply(x, y)[0].tolist() == [8.0, -27.0]
    assert h.divide(x, y)[0].tolist() == [2.0, -3.0]
    assert h.sqrt([np.array([4.0])])[0].tolist() == [2.0]
    assert h.power(x, 2)[0].tolist() == [16.0, 81.0]
    assert h.norm(x) == 13.0
    assert h.sign(x)[0].tolist() == [1.0, -1.0]
    assert h.ones(x, 7)[0].tolist() == [7.0, 7.0]


def test_importing_the_functions_does_not_import_numpy() -> None:
    code = "import sys, scaleoututil.helpers.helpers, docker, fedn.common.log_config; print('numpy' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": str(RUNTIME / "path")}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
