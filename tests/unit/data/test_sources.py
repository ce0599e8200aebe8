"""Every kind of source gives the arrays that were written, and refuses what is wrong in words of its own."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedpkg.config_shape import Places
from fedpkg.data.sources.opening import OpenedSource
from fedpkg.data.sources.registry import resolve_dataset
from fedpkg.errors import ConfigError, DataError
from fedpkg.session.configuration import load
from tests.unit.data.reading import read_dataset

CSV = "age,height,ward,label\n30,1.5,north,ill\n41,1.75,south,well\n52,2,north,ill\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "Daten [λ]"
    path.mkdir()
    return path


def write(folder: Path, text: str, name: str = "t.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def csv(path: str, **parameters: Any) -> dict[str, Any]:
    return {"name": "csv", "path": path, "other": ["ward"], **parameters}


def check_table(found: Any) -> None:
    assert found.arrays["x_train"].dtype == np.float32
    assert found.arrays["x_train"].tolist() == [[30, 1.5], [41, 1.75], [52, 2]]
    assert found.labels("train").tolist() == [0, 1, 0]
    assert found.classes == ("ill", "well")
    assert found.features == ("age", "height")
    assert found.columns["ward"].tolist() == [0, 1, 0]


def test_a_csv_file_becomes_features_labels_and_columns(folder: Path) -> None:
    check_table(read_dataset(csv(write(folder, CSV))))


def test_a_csv_file_may_have_a_byte_order_mark_quotes_and_another_separator(folder: Path) -> None:
    path = write(folder, '\ufeffage;"label; x"\n1;"a;\n""b"""\n2;c\n')
    found = read_dataset({"name": "csv", "path": path, "label": "label; x", "separator": ";"})
    assert found.classes == ('a;\n"b"', "c")
    assert found.arrays["x_train"].tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("labels", "dtype", "values"),
    [(("3", "1", "2"), np.int64, [3, 1, 2]), (("0.5", "1", "-2e3"), np.float32, [0.5, 1, -2000])],
)
def test_labels_that_are_numbers_stay_numbers(folder: Path, labels: tuple[str, ...], dtype: Any, values: Any) -> None:
    path = write(folder, "a,label\n" + "".join(f"1,{label}\n" for label in labels))
    found = read_dataset({"name": "csv", "path": path})
    assert found.labels("train").dtype == dtype
    assert found.labels("train").tolist() == values
    assert found.classes is None


def test_a_parquet_file_gives_the_same_as_the_csv_file(folder: Path) -> None:
    import duckdb

    path = str(folder / "t.parquet")
    write(folder, CSV, "plain.csv")
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT * FROM read_csv(?)", [str(folder / "plain.csv").replace("[", "[[]", 1).replace("λ]", "λ]")]
        ).fetchall()
        connection.execute("CREATE TABLE t (age BIGINT, height DOUBLE, ward VARCHAR, label VARCHAR)")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        connection.execute(f"COPY t TO '{path}' (FORMAT parquet)")
    check_table(read_dataset({"name": "parquet", "path": path, "other": ["ward"]}))


def database(folder: Path) -> str:
    path = folder / "t.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE people (age INTEGER, height REAL, ward TEXT, label TEXT)")
        rows = [(30, 1.5, "north", "ill"), (41, 1.75, "south", "well"), (52, 2.0, "north", "ill")]
        connection.executemany("INSERT INTO people VALUES (?, ?, ?, ?)", rows)
    connection.close()
    return str(path)


def sql(path: str, query: str, **parameters: Any) -> dict[str, Any]:
    return {"name": "sql", "database": path, "query": query, "other": ["ward"], **parameters}


def test_labels_of_arrays_that_are_nan_are_refused_with_the_first_place(folder: Path) -> None:
    path = str(folder / "gaps.npz")
    np.savez(path, x_train=np.zeros((4, 2)), y_train=np.array([0, 1, np.nan, np.nan]))
    with pytest.raises(DataError, match="2 of 4 labels in y_train are NaN, the first at index 2"):
        read_dataset({"name": "npz", "path": path})


def test_an_sql_query_on_sqlite_gives_the_same_as_the_csv_file(folder: Path) -> None:
    check_table(read_dataset(sql(database(folder), "SELECT * FROM people ORDER BY age")))
    query = "WITH p AS (SELECT * FROM people) SELECT age, height, ward, label FROM p ORDER BY age -- all"
    check_table(read_dataset(sql(database_of(folder), query)))


def database_of(folder: Path) -> str:
    return str(folder / "t.sqlite")


def test_numbers_and_texts_from_sqlite_are_exact(folder: Path) -> None:
    path = database(folder)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM people")
        rows = [(2**24, 1 / 3, 'a,"b"\nc', "x"), (-5, 1e-30, "", "y"), (0, -0.1, "ü", "x")]
        connection.executemany("INSERT INTO people VALUES (?, ?, ?, ?)", rows)
    connection.close()
    found = read_dataset({"name": "sql", "database": path, "query": "SELECT age, height, label FROM people"})
    assert np.array_equal(found.arrays["x_train"], np.array([row[:2] for row in rows], np.float32))
    query = "SELECT age, ward AS label FROM people WHERE ward <> ''"
    found = read_dataset({"name": "sql", "database": path, "query": query})
    assert found.classes == ('a,"b"\nc', "ü")


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM people",
        "DROP TABLE people",
        "SELECT 1 AS label; DROP TABLE people",
        "SELECT 1) ; DROP TABLE people; SELECT (2",
        "WITH x AS (SELECT 1) DELETE FROM people",
        "INSERT INTO people VALUES (1, 1, 'a', 'b') RETURNING *",
        "ATTACH '/tmp/other.db' AS o",
        "PRAGMA journal_mode = WAL",
        "VACUUM INTO '/tmp/copy.db'",
        "SELECT load_extension('x')",
        "SELEC * FROM people",
        "SELECT * FROM nobody",
        "",
    ],
)
def test_a_query_that_is_not_one_select_is_refused_and_changes_nothing(folder: Path, query: str) -> None:
    path = database(folder)
    before = Path(path).read_bytes()
    with pytest.raises(DataError, match=r"t\.sqlite: the query (failed|gives no rows)") as caught:
        read_dataset(sql(path, query))
    assert caught.value.hint is not None and "one SELECT" in caught.value.hint
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize(
    ("text", "parameters", "message"),
    [
        ("a,label\n1,x\n2\n", {}, "line 3 has 1 values, and the header has 2"),
        ("a,label\n1,x\n2,y,3\n", {}, "line 3 has 3 values, and the header has 2"),
        ('a,label\n1,"x\n2,y\n', {}, "line 2: Value with unterminated quote"),
        ("a,label\n1,\n2,y\n", {}, "column 'label', row 1, has no value"),
        ("a,label\n1,2\n2,NaN\n", {}, "column 'label', row 2, has no value"),
        ("a,label\n1,2\n,3\n", {}, "column 'a', row 2, has no value"),
        ("a,label\n1,2\nnan,3\n", {}, "column 'a', row 2, has no value"),
        ("a,label\n1,2\nabc,3\n", {}, "column 'a', row 2, holds 'abc'; features must be numbers"),
        ("a,label\n1,2\n2,7\n3,b\n", {}, "column 'label', row 3, holds 'b'; 2 of 3 values are numbers"),
        ("a,labl\n1,2\n", {}, "it has no column 'label'; did you mean 'labl'"),
        ("a,label\n1,2\n", {"features": ["b"]}, "it has no column 'b'"),
        ("a,label\n1,2\n", {"other": ["ward"]}, "it has no column 'ward'"),
        ("a,label\n", {}, "it has no rows"),
        ("", {}, "line 1 must have a name for each column"),
        ("a,,label\n1,2,3\n", {}, "line 1 must have a name for each column"),
        ("a,A,label\n1,2,3\n", {}, "line 1 names the column 'a' twice"),
        ("label\n1\n", {}, "it has no column other than 'label'"),
        ("a,label\n1,2\n", {"separator": ";;"}, "separator must be one character"),
        ("a;label\n1;2\n", {}, "(?s)line 1 has no ',' between names of columns.*set separator: ';'"),
    ],
)
def test_a_wrong_csv_file_is_refused_with_its_line_or_row(
    folder: Path, text: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_dataset({"name": "csv", "path": write(folder, text), **parameters})


def test_a_csv_file_that_is_not_utf_8_or_a_parquet_file_that_is_none_is_refused(folder: Path) -> None:
    (folder / "l.csv").write_bytes(b"a,label\n1,\xff\n")
    with pytest.raises(DataError, match=r"l\.csv: cannot be read: line 2: Invalid unicode"):
        read_dataset({"name": "csv", "path": str(folder / "l.csv")})
    with pytest.raises(DataError, match=r"l\.csv: cannot be read: .*"):
        read_dataset({"name": "parquet", "path": str(folder / "l.csv")})


def test_without_duckdb_the_error_says_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(DataError, match="DuckDB is not installed") as caught:
        read_dataset(csv(write(folder, CSV)))
    assert caught.value.hint == "pip install 'fedpkg[tabular]'"


def test_the_column_that_divides_a_table_is_no_feature_unless_it_is_listed(folder: Path) -> None:
    path = write(folder, CSV)
    found = read_dataset({"name": "csv", "path": path}, by="ward")
    assert (found.features, found.columns["ward"].tolist()) == (("age", "height"), [0, 1, 0])
    listed = read_dataset({"name": "csv", "path": path, "features": ["age", "height"]}, by="age")
    assert (listed.features, listed.columns["age"].tolist()) == (("age", "height"), [30, 41, 52])


def test_files_of_tensors_give_the_arrays_of_the_npz_file(folder: Path) -> None:
    from fedpkg.client import arrays

    values = {
        "x_train": np.arange(6, dtype=np.float32).reshape(3, 2),
        "y_train": np.array([1, 0, 1]),
        "site": np.array([5, 5, 6]),
    }
    arrays.write(str(folder / "d.safetensors"), values)
    np.savez(folder / "d.npz", **values)
    torch.save({name: torch.as_tensor(array) for name, array in values.items()}, folder / "d.pt")
    for name in ("npz", "pt", "safetensors"):
        found = read_dataset({"name": name, "path": str(folder / f"d.{name}"), "columns": ["site"]})
        assert found.suffix == f".{name}"
        assert found.columns["site"].tolist() == [5, 5, 6]
        assert read_dataset(str(folder / f"d.{name}"), by="site").columns["site"].tolist() == [5, 5, 6]
        with pytest.raises(DataError, match="it has no column 'sites'; did you mean 'site'") as caught:
            read_dataset({"name": name, "path": str(folder / f"d.{name}"), "columns": ["sites"]})
        assert caught.value.hint == "it has: site"
        assert all(np.array_equal(found.arrays[key], values[key]) for key in ("x_train", "y_train"))
    (folder / "d.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"d\.safetensors: cannot be read"):
        read_dataset(str(folder / "d.safetensors"))


def image_folder(folder: Path) -> Path:
    from PIL import Image

    root = folder / "images"
    for split, sizes in (("train", {"cat": 2, "dog": 1}), ("test", {"dog": 1})):
        for name, count in sizes.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (4, 3), (number, 10, 20)).save(root / split / name / f"{number}.png")
    return root


def test_a_folder_of_images_by_class_becomes_pixels(folder: Path) -> None:
    root = image_folder(folder)
    found = read_dataset({"name": "images", "path": str(root)})
    assert found.arrays["x_train"].shape == (3, 3, 3, 4)
    assert found.arrays["x_train"][1, :, 0, 0].tolist() == [1, 10, 20]
    assert (found.labels("train").tolist(), found.labels("test").tolist()) == ([0, 0, 1], [1])
    assert found.classes == ("cat", "dog")
    small = read_dataset({"name": "images", "path": str(root / "train"), "mode": "L", "size": [2, 2]})
    assert small.arrays["x_train"].shape == (3, 1, 2, 2)


def test_an_unreadable_image_or_one_of_another_size_is_named(folder: Path) -> None:
    from PIL import Image

    root = image_folder(folder)
    Image.new("RGB", (5, 3)).save(root / "train" / "dog" / "9.png")
    with pytest.raises(DataError, match=r"9\.png: 3 x 5 pixels, but 0\.png has 3 x 4"):
        read_dataset({"name": "images", "path": str(root)})
    (root / "train" / "dog" / "9.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"9\.png: the image cannot be read"):
        read_dataset({"name": "images", "path": str(root)})
    with pytest.raises(DataError, match="no images in folders by class"):
        read_dataset({"name": "images", "path": str(root / "train" / "cat")})


OWN = '''
import numpy as np
import torch
from fedpkg.data.sources.registry import register_dataset

class Squares(torch.utils.data.Dataset):
    def __init__(self, count: int = 4, fails_at: int = -1, length: int | None = None, noise: bool = False):
        self.count, self.fails_at, self.length, self.noise = count, fails_at, length, noise
    def __len__(self):
        return self.count if self.length is None else self.length
    def __getitem__(self, i):
        if i == self.fails_at:
            raise RuntimeError("the disk is on fire")
        if i >= self.count:
            raise IndexError("no more")
        return torch.tensor([i, i * i], dtype=torch.float32) + self.noise * torch.rand(2), i % 2

@register_dataset(__name__)
def mine(rows: int = 3):
    """Arrays by name."""
    return {"x_train": np.zeros((rows, 2)), "y_train": np.arange(rows), "site": np.arange(rows) // 2}

class Reader:
    def read(self):
        return {"x_train": [[1.0], [2.0]], "y_train": ["b", "a"]}

class Wrong:
    def read(self):
        return 5

class Ragged:
    def __len__(self): return 2
    def __getitem__(self, i): return [0.0] * (i + 1), 0
'''


@pytest.fixture
def module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / "own_data_here.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "own_data_here", raising=False)
    return "own_data_here"


def test_a_torch_dataset_by_dotted_path_becomes_arrays(module: str) -> None:
    found = read_dataset({"name": f"{module}:Squares", "count": 3})
    assert found.arrays["x_train"].tolist() == [[0, 0], [1, 1], [2, 4]]
    assert found.labels("train").tolist() == [0, 1, 0]
    state = torch.random.get_rng_state()
    noisy = {"name": f"{module}:Squares", "noise": True}
    assert OpenedSource(noisy).fingerprint() == OpenedSource(noisy).fingerprint()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_own_datasets_may_be_functions_classes_and_names_in_a_file(module: str, folder: Path) -> None:
    assert read_dataset(f"{module}:Reader").labels("train").tolist() == ["b", "a"]
    section = {"file": str(folder / "own_data_here.py"), "rows": 5}
    found = read_dataset(section)
    assert found.labels("train").tolist() == [0, 1, 2, 3, 4]
    assert found.columns["site"].tolist() == [0, 0, 1, 1, 2]
    resolved = resolve_dataset(section, Places("run.yaml"))
    assert isinstance(resolved, dict)
    assert "file_sha256" in resolved


def test_installed_packages_add_datasets(module: str, folder: Path) -> None:
    information = folder / "own_data-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: own-data\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[fedpkg.datasets]\nsquare-numbers = {module}:Squares\n")
    found = read_dataset({"name": "square-numbers", "count": 2})
    assert found.arrays["x_train"].tolist() == [[0, 0], [1, 1]]
    assert resolve_dataset("square-numbers", Places("run.yaml")) == {
        "name": "square-numbers",
        "count": 4,
        "fails_at": -1,
        "length": None,
        "noise": False,
    }


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("Squares", {"fails_at": 2}, "item 2 raised RuntimeError: the disk is on fire"),
        ("Squares", {"length": 6}, "its length is 6, but it has no item 4: no more"),
        ("Squares", {"length": 0}, "it has no examples"),
        ("Squares", {"length": -1}, r"its length raised ValueError"),
        ("Ragged", {}, r"item 1 has features of shape \(2,\) .*, item 0 of shape \(1,\)"),
        ("Wrong", {}, r"read\(\) returned a int, not arrays by name"),
    ],
)
def test_a_dataset_class_that_misbehaves_is_refused(
    module: str, name: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_dataset({"name": f"{module}:{name}", **parameters})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sklearn/digit", "there is no dataset 'sklearn/digit'; did you mean 'sklearn/digits'"),
        ({"name": "cvs", "path": "x"}, "there is no dataset 'cvs'; did you mean 'csv'"),
        ({"name": "csv", "path": "x", "lable": "y"}, "unknown key 'lable' .*did you mean 'label'"),
        ({"name": "csv"}, "missing key 'path'"),
        ({"name": "no.such:Thing"}, "cannot be imported"),
    ],
)
def test_an_unknown_dataset_or_parameter_is_refused_with_similar_names(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_dataset(given, Places("run.yaml"))


def test_a_source_that_changes_while_it_is_read_is_refused_with_both_digests(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder, CSV)
    source = OpenedSource(csv(path))
    digest = source.fingerprint()
    found = source._read()

    def changing() -> Any:
        Path(path).write_text(CSV + "1,2,north,ill\n")
        return found

    monkeypatch.setattr(source, "_read", changing)
    with pytest.raises(DataError, match=f"changed while it was read: its digest was {digest} and is now sha256:"):
        source.read()


def test_a_file_that_was_only_touched_while_it_is_read_is_accepted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(write(folder, CSV))
    source = OpenedSource(csv(str(path)))
    found = source._read()
    monkeypatch.setattr(source, "_read", lambda: (path.touch(), found)[1])
    assert source.read() is found


def test_origins_of_a_dataset_are_those_of_its_text_or_its_keys(folder: Path) -> None:
    text = "package: p\nrounds: 1\nclients:\n  count: 2\n  data: {dataset: t.csv}\n"
    path = Path(write(folder, text, "run.yaml"))
    origins = load(path).origins
    assert origins["clients.data.dataset.path"] == f"{path}:5"
    assert origins["clients.data.dataset.label"] == "default"
    loaded = load(path, ["clients.data.dataset={name: sql, database: 'postgresql://h/x', query: SELECT 1}"])
    assert loaded.origins["clients.data.dataset.query"] == "command line"
    assert loaded.config.clients.data is not None
    assert loaded.config.clients.data.dataset["database"] == "postgresql://h/x"  # type: ignore[index]


def test_libraries_of_other_sources_are_imported_only_when_they_are_needed() -> None:
    code = (
        "import sys; from fedpkg.data.sources.opening import OpenedSource; import fedpkg.data.split; "
        "OpenedSource('sklearn/iris').read(); "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'duckdb', '_duckdb', 'sqlite3', 'PIL', 'datasets', 'psycopg', 'matplotlib', 'pyarrow'}))"
    )  # and not pandas, which scikit-learn imports
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
