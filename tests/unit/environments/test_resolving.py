"""What is said before anything is fetched: its size, where PyTorch comes from, and why nothing fits."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from wheelhouse import write_wheel

from fedpkg.environments.interpreter import find_uv, this_interpreter
from fedpkg.environments.make import list_environments
from fedpkg.environments.resolve import has_gpus, sources_of_pip
from fedpkg.errors import EnvironmentFailed

Choose = Callable[..., "Path | None"]
OLDER = f"{sys.version_info.major}.{sys.version_info.minor - 2}"
ONLY_OLDER = f"cp{OLDER.replace('.', '')}-none-any"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where uv and pip look for distributions."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    return folder


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "p"
    folder.mkdir()
    return folder


# ---- nothing fits


def failure(choose: Choose, folder: Path) -> EnvironmentFailed:
    with pytest.raises(EnvironmentFailed) as caught:
        choose(folder)
    return caught.value


@pytest.mark.slow
@pytest.mark.every_push("uv")
def test_requirements_that_conflict_are_shown_with_their_lines(
    maker: str, root: Path, wheels: Path, mine: Path, choose: Choose
) -> None:
    write_wheel(wheels, name="upper", requires="tiny>=2")
    write_wheel(wheels, name="bystander")
    for version in ("1.0", "2.0"):
        write_wheel(wheels, version=version)
    (mine / "requirements.txt").write_text("bystander\nupper\n\ntiny<2\n")
    error = failure(choose, mine)
    assert error.message.startswith(
        f"Python {this_interpreter().version} cannot satisfy all requirements of package probe:\n"
        "    upper  (requirements.txt, line 2)\n"
        "    tiny<2  (requirements.txt, line 4)\n"
        f"  output of {maker}:\n"
    )
    assert "tiny>=2" in error.message.partition("output of")[2]
    assert "--env current" in str(error.hint)
    assert error.fields["older_python"] is None
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text", "advice"),
    [
        ("requirements.txt", "tiny", f'write a python_env.yaml with python: "{OLDER}" and dependencies: [-r {{}}]'),
        ("python_env.yaml", "dependencies: [tiny]", f"write \"{OLDER}\" under 'python' in {{}}"),
        ("pyproject.toml", "[project]\ndependencies = ['tiny']", f'write requires-python = "=={OLDER}.*" in {{}}'),
    ],
)
def test_an_older_python_that_would_do_is_named(
    root: Path, wheels: Path, mine: Path, choose: Choose, name: str, text: str, advice: str
) -> None:
    write_wheel(wheels, tag=ONLY_OLDER)
    (mine / name).write_text(text)
    error = failure(choose, mine)
    assert error.hint == f"Python {OLDER} would work: {advice.format(name)}"
    assert "cannot satisfy all requirements of package probe:\n    tiny  (" in error.message
    assert list(root.iterdir()) == []


def test_an_older_python_that_the_package_does_not_allow_is_not_named(
    root: Path, wheels: Path, mine: Path, choose: Choose
) -> None:
    write_wheel(wheels, tag=ONLY_OLDER)
    this = ".".join(this_interpreter().version.split(".")[:2])
    (mine / "python_env.yaml").write_text(f'python: ">={this}"\ndependencies: [tiny]')
    assert "--env current" in str(failure(choose, mine).hint)


# ---- size, and PyTorch's builds

CUDA = [("torch", "2.6.0", 766_715_424), ("nvidia-cudnn-cu12", "9.1", 664_752_741), ("sympy", "1.13", 6_189_177)]
CPU = [("torch", "2.6.0+cpu", 178_000_000), ("sympy", "1.13", 6_189_177)]


def lock(packages: list[tuple[str, str, int]]) -> str:
    """As uv writes one."""
    wheel = '[[packages]]\nname = "{}"\nversion = "{}"\nwheels = [{{url = "https://x/x.whl", size = {}}}]\n'
    return 'lock-version = "1.0"\n' + "".join(wheel.format(*one) for one in packages)


class FakeUv:
    """Stands before uv on PATH: it fetches nothing, and keeps the words that it was called with."""

    def __init__(self, folder: Path) -> None:
        self.tools = folder / "tools"
        self.tools.mkdir()
        script = f"""\
            #!{sys.executable}
            import json, os, pathlib, sys
            here, words = pathlib.Path({str(self.tools)!r}), sys.argv[1:]
            with open(here / "calls", "a") as calls:
                calls.write(json.dumps([*words, os.environ.get("UV_HTTP_RETRIES")]) + "\\n")
            backend = any(word.startswith("--torch-backend") for word in words)
            answer = here / ("pylock.torch.toml" if backend else "pylock.toml")
            if words[0] == "venv":
                python = pathlib.Path(words[-1]) / "bin" / "python"
                python.parent.mkdir(parents=True)
                python.symlink_to(sys.executable)
            elif words[1] == "compile":
                if not answer.exists():
                    sys.exit("error: Failed to fetch: `https://download.pytorch.org/whl/cpu/torch/`")
                pathlib.Path(words[words.index("-o") + 1]).write_text(answer.read_text())
            else:
                version = "2.6.0+cpu" if backend else "2.6.0"
                info = pathlib.Path(words[words.index("--python") + 1]).parents[1] / "lib/python3.9/site-packages"
                (info / ("torch-" + version + ".dist-info")).mkdir(parents=True)
                (info / ("torch-" + version + ".dist-info") / "METADATA").write_text(
                    "Metadata-Version: 2.1\\nName: torch\\nVersion: " + version + "\\n")
            """
        self.put("uv", textwrap.dedent(script))

    def put(self, name: str, script: str) -> None:
        (self.tools / name).write_text(script)
        (self.tools / name).chmod(0o755)

    def answers(self, **locks: list[tuple[str, str, int]]) -> None:
        for name, packages in locks.items():
            (self.tools / {"usual": "pylock.toml", "torch": "pylock.torch.toml"}[name]).write_text(lock(packages))

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.tools / "calls").read_text().splitlines()]


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> FakeUv:
    uv = FakeUv(tmp_path)
    monkeypatch.setenv("PATH", f"{uv.tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("UV_OFFLINE")
    caplog.set_level(logging.INFO)
    return uv


@pytest.fixture
def wants_torch(mine: Path) -> Path:
    (mine / "requirements.txt").write_text("torch==2.6\nno-such-thing\n")
    return mine


def test_the_size_of_what_is_fetched_is_said_before(
    root: Path, uv: FakeUv, wants_torch: Path, choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    uv.answers(usual=[("big", "1", 5_100_000_000), ("small", "1", 1_200), ("local", "1", 0)])
    choose(wants_torch)
    assert (
        "environment.fetching about=5.1 GB in 2 distributions, minus what is in the cache of uv "
        "(largest: big 5.1 GB, small 1.2 kB)"
    ) in caplog.text
    assert caplog.text.index("environment.fetching") < caplog.text.index("environment.made")
    assert [call[:2] for call in uv.calls] == [["venv", "--quiet"], ["pip", "compile"], ["pip", "install"]]


def test_pytorch_comes_without_cuda_where_uv_finds_no_gpu(
    root: Path, uv: FakeUv, wants_torch: Path, choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    uv.answers(usual=CUDA, torch=CPU)
    choose(wants_torch)
    assert "environment.torch about=PyTorch 2.6.0+cpu, which uv chose for this machine" in caplog.text
    assert "environment.fetching about=184.2 MB in 2 distributions" in caplog.text
    _venv, _usual, asked, install = uv.calls
    assert "--torch-backend=auto" in asked and asked[-1] == "0", "a site without that index does not wait for retries"
    assert "--torch-backend=auto" in install and install[-1] is None


def test_where_pytorchs_index_cannot_be_reached_its_cuda_libraries_are_announced(
    root: Path, uv: FakeUv, wants_torch: Path, choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    uv.answers(usual=CUDA)
    choose(wants_torch)
    assert (
        "environment.torch about=PyTorch comes with 664.8 MB of CUDA libraries though this machine has no GPU, because "
        "https://download.pytorch.org cannot be used; set UV_TORCH_BACKEND or UV_INDEX to choose another source"
    ) in caplog.text
    assert "environment.fetching about=1.4 GB in 3 distributions" in caplog.text
    assert not any("torch-backend" in word for word in uv.calls[-1] if word)


def test_on_a_machine_with_a_gpu_uv_chooses_the_build_for_its_driver(
    root: Path, uv: FakeUv, wants_torch: Path, choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    uv.put("nvidia-smi", "#!/bin/sh\necho '0, GPU-1, NVIDIA H200, 143771, 143000'\n")
    uv.answers(usual=CUDA, torch=[("torch", "2.6.0+cu126", 768_000_000), *CUDA[1:]])
    choose(wants_torch)
    assert "environment.torch about=PyTorch 2.6.0+cu126, which uv chose for this machine" in caplog.text
    assert "--torch-backend=auto" in uv.calls[-1]


def test_on_a_machine_with_a_gpu_the_usual_builds_are_no_warning(
    root: Path, uv: FakeUv, wants_torch: Path, choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    uv.put("nvidia-smi", "#!/bin/sh\necho '0, GPU-1, NVIDIA H200, 143771, 143000'\n")
    uv.answers(usual=CUDA)
    choose(wants_torch)
    assert "environment.torch" not in caplog.text and "environment.fetching about=1.4 GB" in caplog.text


@pytest.mark.skipif(find_uv() is None, reason="uv is not installed")
@pytest.mark.parametrize(("driver", "index"), [(None, r"whl/cpu/"), ("550.54", r"whl/cu\d+/")])
def test_uv_itself_takes_the_index_for_the_driver_or_that_without_cuda(
    mine: Path, monkeypatch: pytest.MonkeyPatch, driver: str | None, index: str
) -> None:
    """Nothing is fetched: the error says where it would look."""
    if driver is None and has_gpus():
        pytest.skip("this machine has a GPU")
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    if driver is not None:
        monkeypatch.setenv("UV_CUDA_DRIVER_VERSION", driver)
    (mine / "requirements.txt").write_text("torch\n")
    words = [str(find_uv()), "pip", "compile", "--torch-backend=auto", str(mine / "requirements.txt")]
    said = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "UV_HTTP_RETRIES": "0"}).stderr
    assert re.search(f"https://download.pytorch.org/{index}", said), said


def asked_for_torch(uv: FakeUv) -> bool:
    return len(uv.calls) > 3 or any("torch-backend" in word for call in uv.calls for word in call if word)


@pytest.mark.parametrize(
    "variable",
    [
        *("UV_TORCH_BACKEND", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
        *("UV_CONFIG_FILE", "UV_OFFLINE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"),
    ],
)
def test_a_source_that_the_person_named_is_kept(
    root: Path,
    uv: FakeUv,
    wants_torch: Path,
    choose: Choose,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
) -> None:
    uv.answers(usual=CUDA, torch=CPU)
    monkeypatch.setenv(variable, "cu126")
    choose(wants_torch)
    assert not asked_for_torch(uv)
    told = f"though this machine has no GPU, because {variable} decides where it comes from" in caplog.text
    assert told == (variable != "UV_TORCH_BACKEND"), "who names a build has chosen"


@pytest.mark.parametrize(
    ("text", "is_source"),
    [
        ('[[index]]\nurl = "https://mine/simple"\ndefault = true', True),
        ('[pip]\nindex-url = "https://mine/simple"', True),
        ('[pip]\ntorch-backend = "cu126"', True),
        ('cache-dir = "/tmp/index-of-things"', False),
    ],
)
def test_a_source_in_uvs_own_configuration_is_kept(
    root: Path,
    uv: FakeUv,
    wants_torch: Path,
    choose: Choose,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text: str,
    is_source: bool,
) -> None:
    uv.answers(usual=CUDA, torch=CPU)
    (tmp_path / "config" / "uv").mkdir(parents=True)
    (tmp_path / "config" / "uv" / "uv.toml").write_text(text)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    choose(wants_torch)
    assert asked_for_torch(uv) != is_source


def test_uv_is_told_what_a_person_has_told_pip_unless_it_was_told_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sources_of_pip() == {}
    monkeypatch.setenv("PIP_INDEX_URL", "https://mine/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a/simple  https://b/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels file:///more%20wheels")
    assert sources_of_pip() == {
        "UV_DEFAULT_INDEX": "https://mine/simple",
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_FIND_LINKS": "/wheels,file:///more%20wheels",
    }
    monkeypatch.setenv("UV_INDEX", "https://other/simple")
    assert sources_of_pip() == {}


@pytest.mark.slow
@pytest.mark.every_push("uv")
def test_distributions_come_from_where_pip_was_told_whatever_installs_them(
    maker: str, root: Path, mine: Path, choose: Choose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my wheels").mkdir()
    write_wheel(tmp_path / "my wheels", name="tiny")
    monkeypatch.setenv("PIP_FIND_LINKS", (tmp_path / "my wheels").as_uri())
    (mine / "requirements.txt").write_text("tiny\n")
    choose(mine)
    (made,) = list_environments(root)
    assert made.maker == maker and any(one.startswith("tiny==") for one in made.installed)


@pytest.mark.slow
@pytest.mark.every_push("uv")
def test_with_pip_one_line_says_what_is_not_known_and_that_uv_gives_it(
    maker: str, root: Path, wheels: Path, mine: Path, choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_wheel(wheels, name="tiny")
    (mine / "requirements.txt").write_text("tiny\n")
    choose(mine)
    said = (
        "environment.pip about=uv is not installed, so fedpkg uses pip, which cannot tell the download size, choose "
        "the PyTorch build for this machine or find an older Python that would work; `pip install uv` adds all three"
    )
    assert caplog.text.count(said) == (maker == "pip")


@pytest.mark.slow
@pytest.mark.every_push("uv")
def test_where_nothing_fits_pip_cannot_name_an_older_python_and_uv_can(
    maker: str, root: Path, wheels: Path, mine: Path, choose: Choose
) -> None:
    write_wheel(wheels, tag=ONLY_OLDER)
    (mine / "requirements.txt").write_text("tiny\n")
    hint = str(failure(choose, mine).hint)
    assert ("with uv (`pip install uv`) fedpkg looks for an older Python that would work" in hint) == (maker == "pip")
    assert (f"Python {OLDER} would work" in hint) == (maker == "uv")


def test_hashes_of_a_package_keep_its_pytorch(root: Path, uv: FakeUv, mine: Path, choose: Choose) -> None:
    uv.answers(usual=CUDA, torch=CPU)
    (mine / "requirements.txt").write_text(f"torch==99 --hash=sha256:{'0' * 64}\n")
    choose(mine)
    assert len(uv.calls) == 3


def test_a_machine_with_gpus_does_not_take_an_environment_without_cuda(
    root: Path, uv: FakeUv, wants_torch: Path, choose: Choose
) -> None:
    """Where the folder of environments is shared, as a home directory of a cluster is."""
    uv.answers(usual=CUDA, torch=CPU)
    without = choose(wants_torch)
    assert choose(wants_torch) == without
    uv.put("nvidia-smi", "#!/bin/sh\necho '0, GPU-1, NVIDIA H200, 143771, 143000'\n")
    with_gpus = choose(wants_torch)
    assert with_gpus != without
    assert choose(wants_torch) == with_gpus
    assert len(list_environments(root)) == 2


def test_an_old_uv_that_cannot_tell_sizes_installs(root: Path, uv: FakeUv, wants_torch: Path, choose: Choose) -> None:
    script = (uv.tools / "uv").read_text()
    refuses = "sys.exit(\"error: unexpected argument '--format' found\")"
    uv.put("uv", script.replace("if not answer.exists():", f"{refuses}\n    if False:"))
    assert choose(wants_torch) is not None
