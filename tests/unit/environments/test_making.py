"""Environments are made once, whoever asks, and nothing is left of one whose making fails."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from wheelhouse import write_package, write_wheel

from fedpkg.environments import make
from fedpkg.environments.interpreter import Interpreter, find_interpreter, find_uv, lacks, on_path, this_interpreter
from fedpkg.environments.make import (
    RECORD,
    environment_id,
    environments_folder,
    have_environment,
    list_environments,
    remove_environment,
    unfinished,
)
from fedpkg.environments.wanted import PythonWish, Wanted, read_wanted
from fedpkg.errors import EnvironmentFailed, Interrupted, NotFound, StoreError
from fedpkg.library import prepare

Choose = Callable[..., "Path | None"]
MINE = Path(sys.executable)


def number_in(python: Path | None) -> int:
    done = subprocess.run([str(python), "-c", "import tiny; print(tiny.NUMBER)"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def wanted_of(folder: Path) -> Wanted:
    wanted = read_wanted(folder)
    assert wanted is not None
    return wanted


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().split()[0] for record in caplog.records if record.name == "fedpkg.environments"]


@pytest.mark.slow
def test_it_is_made_once(
    maker: str, root: Path, package: Path, choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    python = choose(package)
    assert python is not None and python.is_relative_to(root)
    assert number_in(python) == 1
    assert told(caplog) == ["environment.making", *["environment.pip"] * (maker == "pip"), "environment.made"]
    assert f"maker={maker}" in caplog.text and "seconds=" in caplog.text
    (made,) = list_environments(root)
    assert (made.maker, made.python, made.source) == (maker, this_interpreter().version, "probe: python_env.yaml")
    assert "tiny==1.0" in made.installed
    before = (python.parent.parent / RECORD).stat()
    caplog.clear()
    assert choose(package) == python
    assert told(caplog) == []
    assert (python.parent.parent / RECORD).stat() == before
    assert [path.name for path in root.iterdir()] == [python.parent.parent.name], "no lock, nothing else is left"


@pytest.mark.slow
@pytest.mark.every_push("uv")
def test_a_making_that_fails_leaves_nothing_and_says_why(maker: str, root: Path, package: Path, choose: Choose) -> None:
    (package / "python_env.yaml").write_text("dependencies: [fedpkg-test-no-such-thing==7.1]\n")
    with pytest.raises(EnvironmentFailed) as caught:
        choose(package)
    assert caught.value.message.startswith(
        f"Python {this_interpreter().version} cannot satisfy all requirements of package probe:\n"
        "    fedpkg-test-no-such-thing==7.1  (python_env.yaml, line 1)\n"
        f"  output of {maker}:\n"
    )
    assert "--env current" in str(caught.value.hint)
    assert caught.value.exit_code == 4
    assert list(root.iterdir()) == []


def test_a_damaged_wheel_is_the_packages_fault(root: Path, package: Path, choose: Choose) -> None:
    wheel = package / "wheels" / "tiny-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[:100])
    with pytest.raises(EnvironmentFailed, match="tiny"):
        choose(package)
    assert list(root.iterdir()) == []


MAKE = """
import logging, sys
from pathlib import Path
from fedpkg.environments.choose import choose_python
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
print(choose_python(Path(sys.argv[1]), "auto", package="probe"))
"""


def maker_process(package: Path, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, str(package)],
        env={**os.environ, "PYTHONPATH": str(Path(make.__file__).parents[2]), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_makers_at_the_same_time_make_one(root: Path, package: Path) -> None:
    processes = [maker_process(package) for _ in range(2)]
    outputs = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    assert "".join(err for _, err in outputs).count("environment.making") == 1
    assert len(list_environments(root)) == 1


def test_a_maker_that_was_killed_is_noticed(
    root: Path, package: Path, tmp_path: Path, choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed while uv installs: that goes on, and until it has ended nobody else begins."""
    tools, gate = tmp_path / "tools", tmp_path / "gate"
    tools.mkdir()
    os.mkfifo(gate)
    script = f"""\
        #!/bin/sh
        if [ "$1" = venv ]; then for last; do :; done; mkdir -p "$last"; echo half > "$last/half"; exit 0; fi
        echo $$ > '{tools}/pid'; echo > '{gate}'; read line < '{gate}'
        """
    (tools / "uv").write_text(textwrap.dedent(script))
    (tools / "uv").chmod(0o755)
    killed = maker_process(package, PATH=f"{tools}{os.pathsep}{os.environ['PATH']}")
    gate.read_text()  # it installs now
    killed.kill()
    killed.communicate(timeout=60)
    (left,) = unfinished(root)
    assert (root / left / "half").exists()
    with pytest.raises(StoreError, match="is being made"):
        remove_environment(root, left)
    waiting = maker_process(package)
    assert waiting.stderr is not None
    assert waiting.stderr.readline().startswith("environment.waiting"), "the orphan has the lock"
    os.kill(int((tools / "pid").read_text()), signal.SIGKILL)
    out, err = waiting.communicate(timeout=100)
    assert waiting.returncode == 0, err
    assert number_in(Path(out.strip())) == 1
    assert not (root / left / "half").exists()


def uv_that_waits(folder: Path) -> Path:
    """Make a ``tools/uv`` that writes its process id to the returned pipe, and then waits for ever."""
    tools, gate = folder / "tools", folder / "gate"
    tools.mkdir()
    os.mkfifo(gate)
    (tools / "uv").write_text(f"#!/bin/sh\necho $$ > '{gate}'\nread line < '{gate}'\n")
    (tools / "uv").chmod(0o755)
    return gate


def test_what_is_interrupted_leaves_nothing(root: Path, package: Path, tmp_path: Path) -> None:
    gate = uv_that_waits(tmp_path)
    process = maker_process(package, PATH=f"{tmp_path / 'tools'}{os.pathsep}{os.environ['PATH']}")
    uv_pid = int(gate.read_text())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    assert list(root.iterdir()) == []
    assert not Path(f"/proc/{uv_pid}").exists() or "Z" in Path(f"/proc/{uv_pid}/stat").read_text()


def test_a_session_that_is_stopped_while_an_environment_is_made_ends_and_leaves_nothing(
    root: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that waits until another one has made it."""
    gate = uv_that_waits(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}{os.pathsep}{os.environ['PATH']}")
    waits = threading.Event()
    monkeypatch.setattr(make, "event", lambda _logger, _level, name, **_: name.endswith("waiting") and waits.set())
    one, other = (
        prepare({"package": str(package), "rounds": 1, "clients": {"count": 1}}, tmp_path / name) for name in "ab"
    )
    one.start()
    uv_pid = int(gate.read_text())
    try:
        other.start()
        assert waits.wait(60)
        for session in (other, one):
            session.stop()
            with pytest.raises(Interrupted, match="nothing was recorded"):
                session.join(timeout_s=20)
            assert not any(session.home.sessions.glob("*"))
    except BaseException:
        os.kill(uv_pid, signal.SIGKILL)  # or its session would not end
        raise
    assert list(root.iterdir()) == []
    assert not Path(f"/proc/{uv_pid}").exists()


def test_one_whose_interpreter_is_gone_is_made_again(root: Path, package: Path, choose: Choose) -> None:
    python = choose(package)
    assert python is not None
    python.unlink()
    python.symlink_to("/usr/bin/a-python-that-was-uninstalled")
    assert choose(package) == python
    assert number_in(python) == 1


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    def digest(folder: Path, interpreter: Interpreter | None = None) -> str:
        return environment_id(wanted_of(folder), interpreter or this_interpreter())

    first = write_package(tmp_path / "one")
    same = write_package(tmp_path / "another")
    (same / "python_env.yaml").write_text("name: zzz\ndependencies: ['-r r.txt']\n")
    (same / "r.txt").write_text("# the same\n./wheels/tiny-1.0-py3-none-any.whl\n")
    assert digest(first) == digest(same)
    digests = {digest(first)}
    digests.add(digest(write_package(tmp_path / "other bytes", number=2)))
    digests.add(digest(write_package(tmp_path / "other version", version="1.1")))
    (same / "python_env.yaml").write_text("dependencies: ['-r r.txt', 'numpy>=1']\n")
    digests.add(digest(same))
    (same / "python_env.yaml").write_text("build_dependencies: [wheel]\ndependencies: ['-r r.txt', 'numpy>=1']\n")
    digests.add(digest(same))
    digests.add(digest(first, Interpreter(Path("/x"), "3.99.1", this_interpreter().build)))
    digests.add(digest(first, Interpreter(Path("/x"), this_interpreter().version, ("other", "build"))))
    assert len(digests) == 7


def test_a_changed_requirement_gets_another_environment(in_shared_root: Path, tmp_path: Path, choose: Choose) -> None:
    one, two = (choose(write_package(tmp_path / str(number), number=number)) for number in (1, 2))
    assert one != two
    assert (number_in(one), number_in(two)) == (1, 2)


@pytest.mark.parametrize("only_wheels", [False, True])
def test_nothing_is_built_for_isolated_tasks(
    root: Path, tmp_path: Path, choose: Choose, monkeypatch: pytest.MonkeyPatch, only_wheels: bool
) -> None:
    """What stands before the installer sees its words: a build would run a stranger's code without limits."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text(
        '#!/bin/sh\nif [ "$1" = venv ]; then for last; do :; done; mkdir -p "$last"; exit; fi\necho "$@"\nexit 1\n'
    )
    (tools / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(EnvironmentFailed) as caught:
        choose(write_package(tmp_path / "p"), only_wheels=only_wheels)
    assert ("--only-binary=:all:" in caught.value.message) == only_wheels


# ---- whether one is needed


@pytest.mark.parametrize(
    "requirement",
    [
        "numpy",
        "NumPy >= 1.20",
        "packaging; python_version >= '3.0'",
        "no-such-thing; sys_platform == 'atari'",
        "fedn",
        "fedn==0.9.0",
        "scaleout >= 99",
        "ScaleoutUtil",
    ],
)
def test_what_this_python_satisfies_makes_no_environment(
    root: Path, tmp_path: Path, choose: Choose, requirement: str
) -> None:
    (tmp_path / "requirements.txt").write_text(f"{requirement}\n")
    assert choose(tmp_path) == MINE
    assert not root.exists()


@pytest.mark.parametrize(
    ("requirement", "why"),
    [
        ("no-such-thing", "no-such-thing (not installed)"),
        ("numpy<0.1", "numpy<0.1 ("),
        ("hypothesis[no-such-extra,cli]==0.1", " is installed)"),
    ],
)
def test_what_it_lacks_is_said(tmp_path: Path, requirement: str, why: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"click\n{requirement}\n")
    (reason,) = lacks(wanted_of(tmp_path))
    assert why in reason


def installed(site: Path, name: str, version: str) -> None:
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize(
    ("there", "requirement"),
    [
        ("tensorflow-cpu 2.15.1", "tensorflow==2.15.*"),
        ("tensorflow 2.15.1", "tensorflow-cpu>=2"),
        ("opencv-python-headless 4.9.0.80", "opencv-python"),
        ("opencv-python-headless 4.9.0.80", "OpenCV_Python>=4,<5"),
        ("opencv-contrib-python-headless 4.9.0.80", "opencv-python"),
        ("scikit-learn 1.4.2", "sklearn"),
        ("scikit-learn 1.4.2", "sklearn==0.0"),
        ("scikit-learn 1.4.2", "sklearn==0.0.post5"),
        ("scikit-learn 1.4.2", "sklearn>=1.2"),
    ],
)
def test_an_equivalent_counts_as_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str, requirement: str
) -> None:
    name, version = there.split()
    (tmp_path / "requirements.txt").write_text(f"{requirement}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    assert lacks(wanted_of(tmp_path)), "only the equivalent makes the difference"
    installed(tmp_path / "site", name, version)
    assert lacks(wanted_of(tmp_path)) == []


def test_an_equivalent_of_another_version_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path / "site", "tensorflow-cpu", "2.15.1")
    installed(tmp_path / "site", "scikit-learn", "1.1.0")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    (tmp_path / "requirements.txt").write_text("tensorflow<2\nsklearn>=1.2\n")
    assert lacks(wanted_of(tmp_path)) == [
        "tensorflow<2 (2.15.1 is installed)",
        "scikit-learn>=1.2 (1.1.0 is installed)",
    ]


def test_what_is_installed_for_a_retired_name_is_what_it_stands_for(
    root: Path, tmp_path: Path, choose: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, wheels = tmp_path / "p", tmp_path / "w"
    package.mkdir()
    write_wheel(wheels, number=1, name="scikit_learn", version="1.4.2")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    (package / "requirements.txt").write_text("sklearn==0.0\nscikit-learn==1.4.2\n")
    choose(package)
    (made,) = list_environments(root)
    assert list(made.requirements) == ["scikit-learn", "scikit-learn==1.4.2"]
    assert "scikit-learn==1.4.2" in [one.replace("_", "-") for one in made.installed]


def test_extras_are_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "withextra-1.0.dist-info"
    info.mkdir(parents=True)
    requires = 'Requires-Dist: no-such-thing>=2 ; extra == "more"\nRequires-Dist: numpy ; extra == "some"\n'
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: withextra\nVersion: 1.0\n{requires}")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (tmp_path / "requirements.txt").write_text("withextra[some]\nwithextra[more]\n")
    assert lacks(wanted_of(tmp_path)) == ["withextra[more] (for [more]: no-such-thing not installed)"]


def test_current_is_this_python_and_says_what_it_lacks(
    root: Path, package: Path, choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose(package, "current") == MINE
    assert not root.exists()
    assert "environment.missing" in caplog.text
    assert "package probe requires tiny==1.0 (tiny-1.0-py3-none-any.whl) (a wheel of the package)" in caplog.text


def test_none_reads_nothing(root: Path, package: Path, choose: Choose) -> None:
    (package / "python_env.yaml").write_text("[")
    assert choose(package, "none") is None
    assert not root.exists()


# ---- another version of Python


def wish(text: str, tmp_path: Path) -> PythonWish:
    (tmp_path / "python_env.yaml").write_text(f'name: x\npython: "{text}"\n')
    python = wanted_of(tmp_path).python
    assert python is not None
    return python


def test_this_python_is_taken_where_it_is_what_is_wished(tmp_path: Path) -> None:
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    for text in (minor, f"{minor}.99", f">={minor}", "3"):
        assert find_interpreter(wish(text, tmp_path), package="p") == this_interpreter()


def fake_python(folder: Path, version: str) -> Path:
    """A program that says it is that version."""
    folder.mkdir(exist_ok=True)
    path = folder / f"python{'.'.join(version.split('.')[:2])}"
    answer = json.dumps([version, str(path), ["cpython-x", "linux-x", "/opt/x"]])
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def test_another_python_is_found_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "wërkzeug"
    path = fake_python(tools, "3.7.3")
    fake_python(tools, "3.6.1")
    (tools / "python3.8").write_text("#!/bin/sh\nexit 1\n")  # as pyenv's, of a version that is not set
    (tools / "python3.8").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert find_interpreter(wish("3.7.16", tmp_path), package="p").path == path
    assert find_interpreter(wish("<3.8", tmp_path), package="p").version == "3.7.3"


def test_a_python_that_is_nowhere_is_answered_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choose: Choose, root: Path
) -> None:
    fake_python(tmp_path / "tools", "3.6.1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}{os.pathsep}/bin")
    wish("3.28", tmp_path)
    with pytest.raises(EnvironmentFailed) as caught:
        choose(tmp_path)
    message = caught.value.message
    assert message.startswith(
        "package probe requires Python 3.28 (python_env.yaml, line 2), but this machine has 3.6.1, "
    )
    assert this_interpreter().version in message
    assert caught.value.hint == (
        "install it (`uv python install 3.28`), or use `--env current` to run the package with "
        f"{this_interpreter().version}"
    )
    assert not root.exists()


@pytest.mark.slow
def test_an_environment_of_another_python(root: Path, tmp_path: Path, choose: Choose) -> None:
    """Where this machine has one."""
    others = on_path(minor for minor in (9, 10, 11, 12, 13, 14) if minor != sys.version_info.minor)
    if (found := next(others, None)) is None:
        pytest.skip("there is no other Python that works")
    python = choose(write_package(tmp_path / "p", python=found.version))
    done = subprocess.run([str(python), "-V"], capture_output=True, text=True)
    assert done.stdout.strip() == f"Python {found.version}"
    assert number_in(python) == 1


# ---- where they are, and how they go


def test_the_folder_is_the_users_to_choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDPKG_ENVIRONMENTS", "~/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environments_folder() == tmp_path / "x"
    monkeypatch.delenv("FEDPKG_ENVIRONMENTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert environments_folder() == tmp_path / "cache" / "fedpkg" / "environments"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert environments_folder() == tmp_path / ".cache" / "fedpkg" / "environments"


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, package: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"the folder of environments .* cannot be used") as caught:
        have_environment(wanted_of(package), this_interpreter(), tmp_path / "file" / "x", package="p")
    assert "FEDPKG_ENVIRONMENTS" in str(caught.value.hint)


def test_an_environment_is_removed(root: Path, package: Path, choose: Choose) -> None:
    python = choose(package)
    assert python is not None
    remove_environment(root, python.parent.parent.name)
    assert list(root.iterdir()) == []
    with pytest.raises(NotFound):
        remove_environment(root, python.parent.parent.name)
    with pytest.raises(NotFound):
        remove_environment(root, "..")


def test_nothing_of_the_persons_own_python_gets_into_it(
    root: Path, package: Path, tmp_path: Path, choose: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PYTHONPATH with that distribution in it would make pip think that it is installed."""
    write_wheel(tmp_path / "w", number=9)
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", tmp_path / "w" / "tiny-1.0-py3-none-any.whl", tmp_path / "path"]
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    python = choose(package)
    monkeypatch.delenv("PYTHONPATH")
    assert number_in(python) == 1


def test_makers_are_found_beside_this_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "uv").write_text("#!/bin/sh\n")
    (tools / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", str(tools / "python"))
    assert find_uv() == str(tools / "uv")
