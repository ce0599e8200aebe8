"""What the pages of docs show runs, or is read as a run.yaml or a fedn.yaml.

A block whose language is bash, python or yaml is taken; one of sh, py or yml only shows, and is parsed.
The blocks of a page run in their order, in a copy of the repository: a block with a caption is the file of that name.
"""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
from lessons import SHORTER, bash, shortened

from fedpkg.compute_package.spec import parse_spec
from fedpkg.config import RunConfig
from fedpkg.config_reading import config_of
from fedpkg.session.configuration import resolved
from fedpkg.yaml_places import read_yaml
from tests.unit.cli.cli_support import resolved as command_of

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"^```(?P<language>\S+)(?: (?P<more>\S+))?\n(?P<options>(?::\S+: [^\n]*\n)*)\n?(?P<text>.*?)^```", re.M | re.DOTALL
)
# Programs that run under something else, which their tests start.
ELSEWHERE = {"how-to/coordinators.md": "unit/coordinators/test_coordinators.py"}


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    caption: str = ""


def blocks_of(page: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer((DOCS / page).read_text()):
        language = match["more"] if match["language"] == "{code-block}" else match["language"]
        caption = re.search(r":caption: (.*)", match["options"])
        found.append(Block(language, match["text"], caption[1] if caption else ""))
    return found


PAGES = {
    name: blocks_of(name)
    for name in sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if "generated" not in path.parts)
}


def runs(block: Block) -> bool:
    return bool(block.caption) or block.language in ("bash", "python")


RUN = [page for page, blocks in PAGES.items() if any(map(runs, blocks)) and page not in ELSEWHERE]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", [pytest.param(one, marks=[pytest.mark.soak] * (one in SHORTER)) for one in RUN])
def test_page_runs_as_written(page: str, repository: Path) -> None:
    assert "Traceback" not in bash(script_of(page, repository), repository, warm=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUN if page in SHORTER])
def test_page_runs_with_less_data_and_fewer_rounds(page: str, repository: Path) -> None:
    script = shortened(script_of(page, repository), SHORTER[page])
    assert "Traceback" not in bash(script, repository, warm=True)


def script_of(page: str, repository: Path) -> str:
    """The blocks of a page in their order."""
    script: list[str] = []
    program = ""  # blocks of Python are one program, which runs when the page has been read
    for number, block in enumerate(PAGES[page]):
        if block.caption:
            kept = repository / f".block-{number}"
            kept.write_text(block.text)
            target = shlex.quote(block.caption)
            script.append(f"mkdir -p $(dirname {target}) && cp .block-{number} {target}")
        elif block.language == "bash":
            script.append(block.text)
        elif block.language == "python":
            program += block.text + "\n"
    if program:
        (repository / ".page.py").write_text(program)
        script.append("python .page.py")
    return "\n".join(script)


def test_pages_that_run_elsewhere_do() -> None:
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / "tests" / test).read_text()


SECTIONS = [
    pytest.param(block.text, id=f"{page}-{number}")
    for page, blocks in PAGES.items()
    for number, block in enumerate(blocks)
    if block.language == "yaml"
]


@pytest.mark.parametrize("text", SECTIONS)
def test_yaml_of_a_page_is_a_run_or_a_package(text: str) -> None:
    given, _ = read_yaml(text, source="run.yaml")
    if "entry_points" in given:
        assert parse_spec(text, "fedn.yaml").entry_points
        return
    assert given.keys() <= set(RunConfig.__struct_fields__), "a block that is neither is of the language yml"
    run = {"package": "p", "rounds": 1, "clients": {"count": 9}, **given}
    is_file = "file" in run.get("strategy", {})
    config_of(run, resolve=None if is_file else resolved)


SHOWN = [
    pytest.param(block.language, block.text, id=f"{page}-{number}")
    for page, blocks in PAGES.items()
    for number, block in enumerate(blocks)
    if block.language in ("sh", "py", "yml") and not block.caption
]


@pytest.mark.parametrize(("language", "text"), SHOWN)
def test_block_that_only_shows_can_be_read(
    language: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs what a reader has, such as a session: its commands and their options are parsed, and not run."""
    monkeypatch.chdir(tmp_path)
    if language == "py":  # perhaps the body of a function that yields
        ast.parse("def fragment():\n" + textwrap.indent(text, "    "))
        return
    if language == "yml":
        assert read_yaml(text, source="a page")[0]
        return
    for name in ("stranger.tar.gz", "package.tar.gz", "run.yaml", "examples/digits/run.yaml", "alice.pub"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    for program, *words in filter(None, lines):
        assert program in ("fedpkg", "cd", "pip", "make", "ssh", "curl")
        if program == "fedpkg":
            assert command_of(words)
