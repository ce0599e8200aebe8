"""fedn.yaml is read strictly, and each mistake is reported with its line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fedpkg.compute_package.spec import EntryPoint, PackageSpec, parse_spec, read_spec
from fedpkg.errors import SpecError


def refusal(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "client/fedn.yaml")
    return caught.value.message


def test_all_entry_points_and_the_python_env_are_read() -> None:
    spec = parse_spec(
        "python_env: python_env.yaml\n"
        "entry_points:\n"
        "  build: {command: python model.py}\n"
        "  startup: {command: python data.py}\n"
        "  train: {command: python entrypoint train $ENTRYPOINT_OPTS}\n"
        "  validate: {command: 'python validate.py'}\n"
        '  predict: {command: "Rscript predict.R"}\n',
        "fedn.yaml",
    )
    assert list(spec.entry_points) == ["build", "startup", "train", "validate", "predict"]
    assert spec.entry_point("train") == EntryPoint("train", "python entrypoint train $ENTRYPOINT_OPTS")
    assert spec.python_env == "python_env.yaml"


def test_entry_points_of_split_learning_are_accepted() -> None:
    spec = parse_spec("entry_points: {forward: {command: a}, backward: {command: b}}", "fedn.yaml")
    assert list(spec.entry_points) == ["forward", "backward"]


def test_missing_entry_point_error_lists_what_exists() -> None:
    spec = PackageSpec({"train": EntryPoint("train", "a"), "validate": EntryPoint("validate", "b")})
    with pytest.raises(SpecError) as caught:
        spec.entry_point("predict")
    assert caught.value.message == "the package has no entry point 'predict' (it has: train, validate)"


def test_spec_survives_pickle() -> None:
    spec = parse_spec("entry_points: {train: {command: a}}", "fedn.yaml")
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_newline_at_the_end_of_a_block_scalar_is_not_part_of_the_command() -> None:
    spec = parse_spec("entry_points:\n  train:\n    command: |\n      python train.py\n", "fedn.yaml")
    assert spec.entry_point("train").command == "python train.py"


def test_misspelt_key_is_reported_with_file_line_place_and_nearest_key() -> None:
    assert refusal("entry_points:\n  train:\n    # a comment\n    comand: python train.py\n") == (
        "client/fedn.yaml, line 4: unknown key 'comand' in 'entry_points.train'; did you mean 'command'?"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entry_point: {}\n", "line 1: unknown key 'entry_point'; did you mean 'entry_points'?"),
        ("entry_points:\n  train-2: {command: a}", "line 2: 'train-2' cannot be the name of an entry point"),
        (
            "entry_points:\n  train: {command: a}\n  train: {command: b}",
            "line 3: duplicate key 'train' (first on line 2)",
        ),
        ("entry_points:\n  train: {}", "line 2: missing key 'command' in 'entry_points.train'"),
        ("entry_points:\n  train: a b", "line 2: entry point 'train' is 'a b'; write train: {command: …}"),
        ("entry_points:\n  - train", "line 1: 'entry_points' must be a section of 'key: value' lines, found a list"),
        ("entry_points: {}", "line 1: 'entry_points' is empty"),
        ("python_env: a.yaml", ": missing key 'entry_points'"),
        ("? [1]\n: 2", "line 1: a key must be plain text"),
        ("- train", ": must be a section of 'key: value' lines, found a list"),
        ("", "line 1: the file is empty"),
        ("entry_points:\n\ttrain: a", "line 2: not valid YAML: found character '\\t' that cannot start any token"),
        ("entry_points:\n  train: 'a", "line 2: not valid YAML: found unexpected end of stream"),
        ("entry_points: {}\n\x01", "line 2: not valid YAML: special characters are not allowed"),
        ("a: 1\n---\nb: 2", "line 2: not valid YAML: but found another document"),
    ],
)
def test_each_mistake_is_reported_with_its_line(text: str, message: str) -> None:
    assert refusal(text) == f"client/fedn.yaml{', ' * message.startswith('line')}{message}"


@pytest.mark.parametrize(
    "name", ["column-sums", "RPC_average", "v1.2", "a--b", "_private", "train-2a", "x" * 100, "on"]
)
def test_entry_point_may_have_a_name_of_its_own(name: str) -> None:
    spec = parse_spec(f"entry_points: {{train: {{command: a}}, {name}: {{command: b}}}}", "fedn.yaml")
    assert spec.entry_point(name).command == "b"


@pytest.mark.parametrize(
    "name",
    ["all", "train-2", "a.reply", "a.again-1", "'a b'", "../x", ".a", "-a", "1a", "größe", "x" * 101, "''"],
)
def test_name_by_which_no_task_could_be_found_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"line 1: .* cannot be the name of an entry point") as caught:
        parse_spec(f"entry_points: {{{name}: {{command: b}}}}", "fedn.yaml")
    assert "not end in '-' and a number" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("7", "must be text, found 7"),
        ("true", "must be text, found true"),
        ("", "must be text, found null"),
        ("[a, b]", "must be text, found a list"),
        ("{a: b}", "must be text, found a section with a"),
        ("' '", "is empty"),
        ('"a\\0b"', "contains a NUL character"),
    ],
)
def test_command_must_be_a_string_that_bash_can_run(command: str, problem: str) -> None:
    text = f"entry_points:\n  train:\n    command: {command}\n"
    assert refusal(text) == f"client/fedn.yaml, line 3: 'entry_points.train.command' {problem}"


@pytest.mark.parametrize("python_env", ["../env.yaml", "/env.yaml", "a/../../env.yaml"])
def test_python_env_outside_the_package_is_refused(python_env: str) -> None:
    message = refusal(f"entry_points: {{train: {{command: a}}}}\npython_env: {python_env}\n")
    assert message == f"client/fedn.yaml, line 2: 'python_env' is '{python_env}', which is outside the package"


def test_errors_carry_file_line_and_key_for_machines() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec("entry_points:\n  train: {comand: x}", "a b/fedn.yaml")
    assert caught.value.fields == {"path": "a b/fedn.yaml", "line": 2, "key": "entry_points.train.comand"}
    assert caught.value.hint == "known keys here: command, argument_style"


def test_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "fedn.yaml"
    path.write_bytes("entry_points:\n  # für\n".encode("latin-1"))
    with pytest.raises(SpecError, match=r"fedn\.yaml, line 2: not UTF-8 text"):
        read_spec(path)


def test_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "fedn.yaml"
    path.write_text("entry_points: {train: {command: ä}}", encoding="utf-8-sig")
    assert read_spec(path).entry_point("train").command == "ä"


def test_file_above_64_kibibytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fedn.yaml"
    path.write_text("# ä" * (1 << 15), encoding="utf-8")
    with pytest.raises(SpecError, match=r"larger than 64 KiB, so this is not a fedn\.yaml"):
        read_spec(path)


def test_missing_file_is_a_spec_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"fedn\.yaml: cannot be read: No such file"):
        read_spec(tmp_path / "fedn.yaml")
