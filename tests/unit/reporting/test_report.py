"""`fedpkg session report`: one page with all of a session, for a browser and for paper, without scripts."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedpkg.reporting.charts import Step, trail_chart
from fedpkg.reporting.provenance import (
    ORIGINS,
    STARTS,
    changes_of,
    git_state,
    note_origins,
    note_start,
    read_origins,
    read_starts,
)
from fedpkg.reporting.stored_config import without_secrets
from fedpkg.stores.base import SweepPointRow, SweepRow
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from tests.unit.cli.cli_support import fedpkg
from tests.unit.reporting.browser import document, needs_chromium, printed, screenshot
from tests.unit.reporting.written import HOSTILE, write_session

SECTIONS = ["curves", "clients", "data", "failures", "costs", "rounds", "models", "config"]


def report_of(root: Path, *words: str) -> str:
    target = root.parent / "report.html"
    done = fedpkg("--home", root, "session", "report", *words, "-o", target)
    assert done.code == 0, done.err
    return target.read_text()


class Parts(html.parser.HTMLParser):
    """Ids of headings, tags, and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.append(tag)
        if tag == "h2":
            self.headings.append(given.get("id") or "")
        self.links += [given[name] or "" for name in ("href", "src") if name in given]


def test_a_report_has_every_part_and_loads_nothing(tmp_path: Path) -> None:
    write_session(tmp_path / "home")
    page = report_of(tmp_path / "home")
    parts = Parts(page)
    assert parts.headings == SECTIONS
    assert parts.links == [f"#{name}" for name in SECTIONS], "links lead into the page only"
    assert not {"script", "img", "link", "iframe"} & {*parts.tags}
    assert parts.tags.count("svg") >= 14, "each chart for desk and telephone"
    for text in ("test_accuracy", "middle 80 % of the clients", "client-003", "exit_code", "alpha: 0.5", "digits-1.5"):
        assert text in page
    assert "python" not in page, "versions that are not on record are not made up"


def test_a_report_on_a_damaged_manifest_has_the_sizes_of_the_clients(tmp_path: Path) -> None:
    write_session(tmp_path / "home")
    assert "client × label" in report_of(tmp_path / "home")
    (manifest,) = (tmp_path / "home" / "data").glob("*/partition.json")
    manifest.write_text(manifest.read_text().replace('"num_examples": 50', '"num_examples": "fifty"'))
    page = report_of(tmp_path / "home")
    assert "client × label" not in page and "sizes of the clients" in page


def test_texts_of_clients_stay_texts_in_a_report(tmp_path: Path) -> None:
    write_session(tmp_path / "home", log=HOSTILE, config={"name": HOSTILE, "arguments": {"train": {HOSTILE: HOSTILE}}})
    page = report_of(tmp_path / "home")
    assert not {"script", "img"} & {*Parts(page).tags}
    assert "\x1b" not in page and "\u202e" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_session_without_rounds_and_without_failures_has_a_report(tmp_path: Path, rounds: int) -> None:
    write_session(tmp_path / "home", rounds=rounds, fails_every=99, status="running")
    page = report_of(tmp_path / "home")
    assert "No task failed." in page and ("killed, 1 of 1 rounds" if rounds else "killed, 0 rounds") in page
    assert ("No round has a metric." in page) == (rounds == 0)


def test_a_report_says_where_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_session(tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    done = fedpkg("--home", tmp_path / "home", "session", "report", "--json")
    assert (
        done.json()["file"] == "digits-1.html"
        and (tmp_path / "digits-1.html").stat().st_size == done.json()["size_bytes"]
    )
    done = fedpkg("--home", tmp_path / "home", "session", "report", "digits-2", "-o", tmp_path / "x.html")
    assert done.code != 0 and "no session 'digits-2'" in done.err and not (tmp_path / "x.html").exists()
    done = fedpkg("--home", tmp_path / "home", "session", "report", "-o", tmp_path)
    assert done.code != 0 and "cannot be written" in done.err


def test_secrets_of_the_configuration_are_hidden() -> None:
    config = {
        "environment": {"HF_TOKEN": "hf_123", "MODE": "fast"},
        "groups": [{"api_key": "k", "password": "", "seed": 1}],
        "database": "postgresql://me:s3cret@host:5432/clinic",
    }
    hidden = {
        "environment": {"HF_TOKEN": "(hidden)", "MODE": "fast"},
        "groups": [{"api_key": "(hidden)", "password": "", "seed": 1}],
        "database": "postgresql://me:(hidden)@host:5432/clinic",
    }
    assert without_secrets(config) == hidden


def _git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_what_a_session_ran_with_is_recorded_at_each_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, folder = tmp_path / "ein Ordner", tmp_path / "session"
    repository.mkdir()
    folder.mkdir()
    assert git_state(repository) == ({}, b"")
    _git(repository, "init", "-b", "main")
    (repository / "train.py").write_text("lr = 1\n")
    _git(repository, "add", ".")
    _git(repository, "commit", "-m", "first")
    monkeypatch.chdir(repository)
    note_start(folder)()
    (repository / "train.py").write_text("lr = 2\n")
    (repository / "new.py").write_text("")
    note_start(folder)()
    clean, dirty = read_starts(folder)
    assert clean["git"]["changed"] == 0 and re.fullmatch("[0-9a-f]{40}", clean["git"]["commit"])
    assert clean["versions"].keys() >= {"python", "torch", "numpy"} and changes_of(folder, clean) is None
    assert dirty["git"]["changed"] == 1 and dirty["git"]["untracked"] == ["new.py"]
    changes = changes_of(folder, dirty)
    assert changes is not None and "+lr = 2" in changes.read_text()


def test_renamed_files_and_odd_names_are_counted_once_and_a_first_commit_may_be_missing(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-b", "main")
    (tmp_path / "1 a – b.py").write_text("x = 1\n" * 20)
    _git(tmp_path, "add", ".")
    about, changes = git_state(tmp_path)
    assert about == {"commit": "(initial)", "branch": "main", "changed": 1, "untracked": []} and changes == b""
    _git(tmp_path, "commit", "-m", "first")
    _git(tmp_path, "mv", "1 a – b.py", "2 c.py")
    (tmp_path / "? d.py").write_text("")
    about, changes = git_state(tmp_path)
    assert about["changed"] == 1 and about["untracked"] == ["? d.py"] and b"rename to 2 c.py" in changes


def test_a_repository_cannot_name_programs_that_run(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / ".gitattributes").write_text("*.txt diff=own\n")
    _git(tmp_path, "init", "-b", "main")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-m", "first")
    (tmp_path / "a.txt").write_text("two\n")
    ran = tmp_path / "ran"
    for key in ("core.fsmonitor", "diff.external", "diff.own.textconv", "diff.own.command"):
        _git(tmp_path, "config", key, f"touch '{ran}'; true")
    about, changes = git_state(tmp_path)
    assert about["changed"] == 1 and b"+two" in changes and not ran.exists()


def test_origins_of_values_have_no_folders_and_follow_a_resume(tmp_path: Path) -> None:
    (tmp_path / ORIGINS).write_text("[" * 100_000)
    assert read_origins(tmp_path) == {}
    note_origins(tmp_path, {"rounds": "/srv/runs/run.yaml:2", "seed": "command line", "package": "run.yaml:1"})
    note_origins(tmp_path, {"rounds": "resume"})
    assert read_origins(tmp_path) == {"rounds": "resume", "seed": "command line", "package": "run.yaml:1"}


def test_a_report_tells_versions_commit_and_each_resume(tmp_path: Path) -> None:
    home = write_session(tmp_path / "home")
    folder = home.session_folder("digits-1")
    folder.mkdir(parents=True)
    git = {"commit": "c0ffee", "branch": HOSTILE, "changed": 2, "untracked": ["x"]}
    starts = [
        {"at": 1.7e9, "versions": {"python": "3.99"}, "machine": {"cores": 7}, "folder": "/x", "git": git},
        {"at": 1.7e9},
    ]
    (folder / STARTS).write_text(json.dumps(starts))
    page = report_of(tmp_path / "home")
    assert "python 3.99" in page and "c0ffee" in page and "uncommitted changes in 2 files" in page
    assert "resumed 2023-11-1" in page and "script" not in Parts(page).tags
    (folder / STARTS).write_text("[" * 100_000)
    assert "not on record" in report_of(tmp_path / "home")


@needs_chromium
@pytest.mark.slow
def test_chromium_shows_a_report_in_light_in_dark_and_on_a_telephone_and_prints_it(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    write_session(tmp_path / "home", rounds=20, clients=10, log=HOSTILE)
    report_of(tmp_path / "home")
    page = tmp_path / "report.html"
    read = document(page)
    assert Parts(read).headings == SECTIONS and "<title>digits-1" in read, "no script changed the title"
    colours = {}
    for name, width, dark in (("light", 1200, False), ("dark", 1200, True), ("phone", 500, False)):
        with image.open(screenshot(page, tmp_path / f"{name}.png", width=width, dark=dark)) as picture:
            rgb = picture.convert("RGB")
            colours[name] = rgb.getpixel((3, 3))
            found = rgb.getcolors(1 << 24)
            assert picture.size[0] == width and len(found) > 100, f"{name}: not blank"
            curve = (0x4A, 0xA8, 0xE8) if dark else (0x00, 0x72, 0xB2)
            assert any(colour == curve for _, colour in found), f"{name}: a curve is drawn"
    assert colours == {"light": (255, 255, 255), "dark": (0x14, 0x18, 0x1D), "phone": (255, 255, 255)}
    assert printed(page, tmp_path / "paper.pdf").read_bytes().count(b"/Type /Page") > 2


@pytest.mark.soak
def test_a_report_of_500_rounds_and_100_clients_takes_less_than_5_seconds_and_3_megabytes() -> None:
    from tests.benchmarks.report import measure

    seconds, size = measure()
    assert seconds < 5 and size < 3_000_000, f"{seconds:.2f} s, {size} bytes"


def test_a_report_names_the_sweep_of_its_session_and_the_choices_without_secrets(tmp_path: Path) -> None:
    home = write_session(tmp_path / "home")
    choices = {"arguments.train.lr": 0.1, "environment.API_TOKEN": "hunter2", "method": "<b>"}
    point = SweepPointRow(sweep="tune", number=3, choices=choices, session_id="digits-1")
    with open_store(home) as store:
        row = SweepRow(name="tune", kind="grid", source="run.yaml", overrides=[], created_at=1.0, updated_at=1.0)
        store.sweeps.create(row, [point])
    page = report_of(tmp_path / "home")
    assert "tune, point 3: arguments.train.lr=0.1 environment.API_TOKEN=(hidden) method=&lt;b&gt;" in page
    assert "hunter2" not in page


def test_a_run_loads_no_drawing_library() -> None:
    code = "import sys, fedpkg.cli.run, fedpkg.session.session; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_report_draws_the_ends_of_a_long_model_trail_and_names_the_best_round(tmp_path: Path) -> None:
    write_session(tmp_path / "home", rounds=30)
    page = report_of(tmp_path / "home")
    assert "27 more" in page and "round 30" in page and "seed model" in page
    assert re.search(r"best test_accuracy</th><td>0\.9\d+, round \d+<", page)
    with open_store(Home.open(tmp_path / "home"), read_only=True) as store:
        models = [Step(one.model_id, one.parent_id, one.round_number, 1) for one in store.list_models("digits-1")]
    names = [node.label or node.name for node in trail_chart(models).nodes]
    assert names == ["seed model", "round 1", "…", "round 29", "round 30"]
    assert [node.label for node in trail_chart(models[:3]).nodes] == ["seed model", "round 1", "round 2"]


def test_a_trail_with_branches_draws_the_ends_of_each() -> None:
    trunk = [Step(f"t{n}", f"t{n - 1}" if n else None, n, 4) for n in range(10)]
    found = trail_chart(
        [*trunk, *(Step(f"{b}{n}", f"{b}{n - 1}" if n > 10 else "t9", n, 2, b) for b in "ab" for n in range(10, 30))]
    )
    below = {node.name: node.parent for node in found.nodes}
    assert below["t1"] == "t0" and below["t8"] == "… t2" and below["a10"] == below["b10"] == "t9"
    assert below["a28"] == "… a12" and len(found.nodes) == 15
