"""What a package wants: each file that may say so, and every line that may not stand there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wheelhouse import write_wheel

from fedpkg.environments.wanted import read_wanted
from fedpkg.errors import SpecError


def texts(folder: Path, **fields: object) -> list[str]:
    wanted = read_wanted(folder, **fields)  # type: ignore[arg-type]
    assert wanted is not None
    return [str(item) for item in wanted.items]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_fedns_file_is_read(tmp_path: Path) -> None:
    text = """\
# header
name: .mnist-pytorch
python: 3.10
build_dependencies:
  - pip
  - wheel==0.37.1
dependencies:
  - torch==2.4.1; (sys_platform == "darwin" and platform_machine == "arm64") or sys_platform == "linux"
  - -r requirements.txt
  - fire ~= 0.5  # for the command line
"""
    write(tmp_path, env_DOT_yaml=text, requirements_DOT_txt="numpy >= 1.20 \\\n  , < 3\n\n# none\nfedn\n")
    wanted = read_wanted(tmp_path, python_env="env.yaml")
    assert wanted is not None
    assert [item.requirement.name for item in wanted.items] == ["torch", "numpy", "fedn", "fire"]
    assert str(wanted.items[1]) == "numpy<3,>=1.20"
    assert wanted.items[1].where == "requirements.txt, line 1"
    assert wanted.items[3].where == "env.yaml, line 10"
    assert [str(item) for item in wanted.build_items] == ["pip", "wheel==0.37.1"]
    assert wanted.python is not None
    assert (wanted.python.text, wanted.python.where) == ("3.10", "env.yaml, line 3")
    assert wanted.python.allows("3.10.9")
    assert not wanted.python.allows("3.1.0")


def test_the_first_file_that_is_there_counts_alone(tmp_path: Path) -> None:
    assert read_wanted(tmp_path, scripts=["train.py"]) is None
    write(tmp_path, pyproject_DOT_toml='[project]\nname = "x"\ndependencies = ["five"]\n')
    assert texts(tmp_path) == ["five"]
    write(tmp_path, requirements_DOT_txt="four\n")
    assert texts(tmp_path) == ["four"]
    write(tmp_path, train_DOT_py='# /// script\n# dependencies = ["three"]\n# ///\nprint()\n')
    assert texts(tmp_path, scripts=["train.py"]) == ["three"]
    write(tmp_path, python_env_DOT_yaml="dependencies: [two]\n")
    assert texts(tmp_path, scripts=["train.py"]) == ["two"]
    write(tmp_path, other_DOT_yaml="dependencies: [one]\n", some_DOT_txt="a\nb\n")
    assert texts(tmp_path, python_env="other.yaml") == ["one"]
    assert texts(tmp_path, python_env="some.txt") == ["a", "b"]
    assert texts(tmp_path, python_env="pyproject.toml") == ["five"]


def test_scripts_metadata_add_up(tmp_path: Path) -> None:
    one = '# /// script\n# requires-python = ">=3.9"\n# dependencies = [\n#   "numpy",\n#   "fire",\n# ]\n# ///\n'
    other = '#!/usr/bin/env python\n# /// script\r\n# requires-python = "<4"\r\n# dependencies = ["numpy"]\r\n# ///\n'
    write(tmp_path, src__a_DOT_py=one, b_DOT_py=other, c_DOT_py="print(1)\n")
    wanted = read_wanted(tmp_path, scripts=["src/a.py", "b.py", "c.py", "gone.py", "src/a.py"])
    assert wanted is not None
    assert [str(item) for item in wanted.items] == ["numpy", "fire"]
    assert wanted.source == "src/a.py, b.py"
    assert wanted.python is not None
    assert wanted.python.allows("3.11.0")
    assert not wanted.python.allows("3.8.0")


def test_a_pyproject_of_some_tool_wants_nothing(tmp_path: Path) -> None:
    assert read_wanted(write(tmp_path, pyproject_DOT_toml="[tool.ruff]\nline-length = 120\n")) is None


def test_wheels_of_the_package_are_wanted_by_path(tmp_path: Path) -> None:
    write_wheel(tmp_path / "räder und mehr", number=1)
    write(tmp_path, deps__requirements_DOT_txt="../räder und mehr/tiny-1.0-py3-none-any.whl ; python_version >= '3'\n")
    wanted = read_wanted(tmp_path, python_env="deps/requirements.txt")
    assert wanted is not None
    (item,) = wanted.items
    assert item.wheel == tmp_path / "räder und mehr" / "tiny-1.0-py3-none-any.whl"
    assert str(item.requirement) == 'tiny==1.0; python_version >= "3"'


def test_hashes_stay_with_their_requirement(tmp_path: Path) -> None:
    text = f"numpy==2.0 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\nfire\n"
    wanted = read_wanted(write(tmp_path, requirements_DOT_txt=text))
    assert wanted is not None
    assert [item.hashes for item in wanted.items] == [(f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"), ()]


@pytest.mark.parametrize(
    "line",
    [
        "git+https://github.com/scaleoutsystems/fedn.git@develop#egg=fedn&subdirectory=fedn",
        "fedn @ git+https://github.com/scaleoutsystems/fedn.git@master#subdirectory=fedn",
    ],
)
def test_fedn_from_a_url_is_left_to_the_compatibility_modules(tmp_path: Path, line: str) -> None:
    assert texts(write(tmp_path, requirements_DOT_txt=f"{line}\nfire\n")) == ["fire"]


REFUSED = {
    "--index-url https://evil.example/simple": "the option '--index-url' is not allowed",
    "-i https://evil.example/simple": "the option '-i' is not allowed",
    "--extra-index-url=https://evil.example": "the option '--extra-index-url' is not allowed",
    "--find-links ./wheels": "the option '--find-links' is not allowed",
    "--trusted-host evil.example": "the option '--trusted-host' is not allowed",
    "--pre": "the option '--pre' is not allowed",
    "-e .": "the option '-e' is not allowed",
    "-c constraints.txt": "the option '-c' is not allowed",
    "--requirement-file x": "the option '--requirement-file' is not allowed",
    "numpy --global-option=--evil": "'numpy --global-option=--evil' is not a requirement",
    "numpy --hash=md5:1234": "'--hash=md5:1234' is not",
    "https://evil.example/numpy-1.0-py3-none-any.whl": "is a URL, which is not allowed",
    "git+ssh://git@evil.example/x.git": "is a URL, which is not allowed",
    "git@evil.example:x/y.git": "'git' comes from a URL, which is not allowed",
    "file:///etc/passwd": "is a URL, which is not allowed",
    "git+https://evil.example/x#egg=numpy": "is a URL, which is not allowed",
    "numpy @ https://evil.example/n.whl": "'numpy' comes from a URL",
    "numpy@file:///tmp/n.whl": "'numpy' comes from a URL",
    "/tmp/tiny-1.0-py3-none-any.whl": "'/tmp/tiny-1.0-py3-none-any.whl' is outside the package",
    "~/tiny-1.0-py3-none-any.whl": "is outside the package",
    "../tiny-1.0-py3-none-any.whl": "'../tiny-1.0-py3-none-any.whl' is outside the package",
    "wheels/../../tiny-1.0-py3-none-any.whl": "is outside the package",
    "./tiny-1.0-py3-none-any.whl": "does not exist",
    "./odd.whl": "'./odd.whl' does not exist",
    ".": "'.' is a file or folder that is not a wheel",
    "./src": "'./src' is a file or folder that is not a wheel",
    "src/tiny-1.0.tar.gz": "'src/tiny-1.0.tar.gz' is a file or folder that is not a wheel",
    "numpy==$HOME": "characters that a requirement cannot have",
    "numpy ==": "'numpy ==' is not a requirement",
    "numpy 1.2": "'numpy 1.2' is not a requirement",
    "numpy; python_version > ": "is not a requirement",
    "numpy;" + "(" * 900: "is not a requirement",
    "a" * 2000: "is too long",
    "numpy\x1b[31m": "characters that a requirement cannot have",
    "-r ../requirements.txt": "'../requirements.txt' is outside the package",
    "-r /etc/passwd": "'/etc/passwd' is outside the package",
    "-r https://evil.example/r.txt": "is outside the package",
    "-r link.txt": "'link.txt' is outside the package",
    "-r gone.txt": "gone.txt: cannot be read",
    "-r list.txt": "'-r list.txt' includes itself",
}


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: line[:40])
def test_a_line_that_a_stranger_might_write_is_refused(tmp_path: Path, line: str) -> None:
    folder = write(tmp_path / "p", list_DOT_txt=f"fire\n{line}\n")
    (tmp_path / "secret.txt").write_text("numpy\n")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(SpecError) as caught:
        read_wanted(folder, python_env="list.txt")
    assert REFUSED[line] in caught.value.message
    if "gone.txt" not in line and "list.txt" not in line:
        assert caught.value.message.startswith("list.txt, line 2: ")


@pytest.mark.parametrize("line", [line for line in REFUSED if line.isprintable() and len(line) < 200][:20])
def test_so_it_is_in_yaml(tmp_path: Path, line: str) -> None:
    import json

    folder = write(tmp_path, python_env_DOT_yaml=f"dependencies:\n  - fire\n  - {json.dumps(line)}\n")
    with pytest.raises(SpecError, match=r"^python_env\.yaml, line 3: "):
        read_wanted(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dependencies: numpy\n", "python_env.yaml, line 1: 'dependencies' must be a list of text"),
        ("name: x\ndependences: []\n", "line 2: unknown key 'dependences'; did you mean 'dependencies'?"),
        ("name: x\ndependencies:\n- [a]\n", "line 3: 'dependencies.0' must be text, found a list"),
        ("python: [3]\n", "line 1: 'python' must be text"),
        ("python: later\n", "line 1: 'later' is not a version of Python"),
        ("python: '3.9'\npython_version: '3.9'\n", "line 2: 'python' and 'python_version' are the same key"),
        ("name: a\nname: b\n", "line 2: duplicate key 'name' (first on line 1)"),
        ("- numpy\n", "must be a section of 'key: value' lines, found a list"),
        ("", "line 1: the file is empty"),
        ("a: &x [1]\nb: *x\n", "line 1: anchors, aliases and tags (&, *, !) are not allowed"),
        ("name: !!python/object/apply:os.system [id]\n", "line 1: anchors, aliases and tags"),
        ("dependencies: " + "[" * 500, "line 1: nested too deeply"),
        ("dependencies: [\n", "not valid YAML"),
        (
            "python: '3." + "1" * 100_000 + "'\n",
            "line 1: a Python version of 100002 characters; at most 200 are allowed",
        ),
        ("python: '>=3." + "1" * 5000 + "'\n", "line 1: a Python version of 5004 characters; at most 200 are allowed"),
        ("x" * (1 << 20) + "\n", "python_env.yaml: cannot be read: larger than 1 MiB"),
    ],
    ids=lambda text: text[:30],
)
def test_python_env_yaml_is_read_strictly(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_wanted(write(tmp_path, python_env_DOT_yaml=text))
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[project\n", "pyproject.toml, line 1: not valid TOML"),
        ("[project]\ndependencies = 3\n", "pyproject.toml, line 2: 'dependencies' must be a list"),
        ("[project]\n\nrequires-python = 3\n", "pyproject.toml, line 3: 'requires-python' must be a string"),
        ("[project]\nname='x'\ndynamic = ['dependencies']\n", "pyproject.toml, line 3: its dependencies are dynamic"),
        ("[project]\ndependencies = [\n 'a',\n 'b @ https://evil'\n]\n", "pyproject.toml, line 4: 'b' comes from"),
        ("project = 3\n", "pyproject.toml: 'project' must be a table"),
        ("x = " + "[" * 5000, "pyproject.toml"),
    ],
    ids=lambda text: text[:30],
)
def test_pyproject_is_read_strictly(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_wanted(write(tmp_path, pyproject_DOT_toml=text))
    assert message in caught.value.message


def test_a_mistake_in_a_script_has_the_scripts_line(tmp_path: Path) -> None:
    script = "import os\n\n# /// script\n# dependencies = [\n#   'numpy',\n#   '-e .',\n# ]\n# ///\n"
    with pytest.raises(SpecError, match=r"^train\.py, line 6: "):
        read_wanted(write(tmp_path, train_DOT_py=script), scripts=["train.py"])
    twice = "# /// script\n# ///\n" * 2
    with pytest.raises(SpecError, match=r"^train\.py, line \d: "):
        read_wanted(write(tmp_path, train_DOT_py="# /// script\n# a = [\n# ///\n" + twice), scripts=["train.py"])


def test_a_file_outside_named_by_a_link_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", a_DOT_py="")
    (tmp_path / "env.yaml").write_text("dependencies: [numpy]\n")
    (folder / "python_env.yaml").symlink_to(tmp_path / "env.yaml")
    with pytest.raises(SpecError, match="outside the package"):
        read_wanted(folder)


LETTERS = st.text(st.sampled_from("ab1.=<>;@:/-[]()'\"\\ \n#${}~!,&*%é\0"), max_size=80)


@settings(deadline=None)
@given(LETTERS)
def test_any_text_is_requirements_or_gets_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "any text"
    folder.mkdir(exist_ok=True)
    for name in ("requirements.txt", "python_env.yaml", "pyproject.toml"):
        (folder / name).write_text(f"dependencies:\n  - {text}\n" if name.endswith("yaml") else text)
        try:
            read_wanted(folder, python_env=name)
        except SpecError:
            pass
