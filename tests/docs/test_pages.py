"""The documentation builds without a warning, and what is generated from the code is complete."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from inspect import getsource
from pathlib import Path

import pytest
import yaml
from equations import rendered
from pictures import FOLDER, drawn
from registry_pages import KINDS, example, specs
from warm import warm_python

from fedpkg.config_reading import config_of
from fedpkg.dispatch import staging
from fedpkg.registry import Spec
from fedpkg.session.configuration import resolved
from fedpkg.waist.answer import FAILURES
from tests.unit.reporting.browser import document, needs_chromium

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CENTRAL = """\
from vantage6.algorithm.tools.decorators import algorithm_client

@algorithm_client
def central_mean(client):
    return {}
"""
SPECS = [spec for kind in KINDS for spec in specs(kind)]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("theme", ["basic", pytest.param("furo", marks=pytest.mark.soak)])
def test_site_builds_without_a_warning_and_every_link_in_it_leads_somewhere(tmp_path: Path, theme: str) -> None:
    """Half of the time of a build is furo's list of all pages, which it makes again for every page."""
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("_build", "generated", "__pycache__"))
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns(".fedpkg"))
    site = tmp_path / "site"
    if theme != "furo":
        with (tmp_path / "docs" / "conf.py").open("a") as conf:
            conf.write(f"html_theme, html_theme_options = {theme!r}, {{}}\n")
    build(tmp_path / "docs", site)
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    broken = []
    for path, text in pages.items():
        for link in re.findall(r'<a [^>]*href="([^"]+)"', text):
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            leads = (path.parent / target).resolve() if target else path
            if not leads.exists() or (anchor and leads in ids and anchor not in ids[leads]):
                broken.append((str(path.relative_to(site)), link))
    assert broken == []


def test_theme_of_the_site_takes_its_options(tmp_path: Path) -> None:
    shutil.copytree(DOCS / "_static", tmp_path / "docs" / "_static")
    shutil.copy(DOCS / "conf.py", tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text("# One page\n")
    build(tmp_path / "docs", tmp_path / "site", "extensions=myst_parser,sphinx_copybutton")
    assert "fedpkg.css" in (tmp_path / "site" / "index.html").read_text()


def build(docs: Path, site: Path, *options: str) -> None:
    """Build the site; a warning is an error."""
    words = ["-m", "sphinx", "-W", "--keep-going", "-q", *(f"-D{one}" for one in options), str(docs), str(site)]
    done = subprocess.run([*warm_python(), *words], capture_output=True, text=True, timeout=390)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{spec.name}")
def test_example_of_a_page_is_a_section_that_a_run_takes(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "server" / "mean_of_clinics" / "__init__.py"  # what the example of an algorithm names
    module.parent.mkdir(parents=True)
    module.write_text(CENTRAL)
    monkeypatch.chdir(tmp_path)
    run = {"package": "p", "rounds": 1, "clients": {"count": 9}, **yaml.safe_load(example(spec))}
    config_of(run, resolve=resolved)


@needs_chromium
@pytest.mark.parametrize("width", [390, 800])
def test_names_are_not_broken_in_tables_and_wide_text(tmp_path: Path, width: int) -> None:
    names = ["minimum_organizations", "mean_and_variance", "--node-config", "num-server-rounds", "max-count"]
    code = '<code class="literal"><span class="pre">{}</span></code>'
    cells = [code.format(name) for name in names]
    rows = "".join(f"<tr><td>{cell}<td>{cell}<td>{'what it means ' * 9}" for cell in cells[:2])
    text = f"<p>{' and '.join(cells * 9)}</p>" if width > 736 else ""
    inner = (
        f"<!doctype html><style>{(DOCS / '_static' / 'fedpkg.css').read_text()}</style>"
        f'<div class="table-wrapper"><table class="docutils">{rows}</table></div>{text}'
    )
    page = tmp_path / "page.html"
    page.write_text(
        f"<!doctype html><pre></pre><iframe width={width} srcdoc='{inner}'></iframe><script>onload = () => {{"
        "const inner = document.querySelector('iframe').contentDocument;"
        "const broken = [...inner.querySelectorAll('.pre')].filter(e => e.getClientRects().length > 1);"
        "document.querySelector('pre').textContent = broken.map(e => e.textContent).join() || 'none broken'}</script>"
    )
    assert "<pre>none broken</pre>" in document(page)


def test_tables_of_two_columns_have_headings() -> None:
    pages = [*DOCS.glob("*/*.md"), *(ROOT / "examples").glob("*/README.md")]
    bare = re.compile(r"^\|(?: \||[^|\n]*\| \|)\n\|---\|---\|$", re.M)
    assert [page.name for page in pages if bare.search(page.read_text())] == []


def test_pictures_are_those_that_the_code_draws() -> None:
    for name, text in drawn():
        assert (FOLDER / name).read_text() == text, "python docs/_ext/pictures.py draws them again"


def test_equations_are_laid_out() -> None:
    assert rendered("w <- sum_k (n_k / n) w_k;  mu in e^(a_1 / tau)") == (
        '<div class="equation">w ← ∑<sub>k</sub> (n<sub>k</sub> / n) w<sub>k</sub><br>'
        "μ in e<sup>a<sub>1</sub> / τ</sup></div>"
    )
    assert "server_optimiser(w, a)" in rendered("w <- server_optimiser(w, a)")


def test_page_on_task_json_has_its_keys() -> None:
    page = (DOCS / "reference" / "task-json.md").read_text()
    written = set(staging._OF_THE_ORDER) | set(re.findall(r'^ +"(\w+)": ', getsource(staging.task_record), re.M))
    cells = "".join(re.findall(r"^\| (`.*?) \|", page, re.M))
    assert len(written) > 20
    assert set(re.findall(r"`(\w+)`", cells)) == written


def test_page_on_environment_variables_has_all_that_the_code_reads_or_sets() -> None:
    page = (DOCS / "reference" / "environment-variables.md").read_text()
    found = set()
    for path in (ROOT / "fedpkg").rglob("*.py"):
        if "compat" not in path.parts:
            found |= set(re.findall(r'"((?:FEDPKG|FEDN|SCALEOUT)_[A-Z_]+[A-Z])"', path.read_text()))
    assert len(found) > 8
    assert {name for name in found if f"`{name}`" not in page} == set()


def literals() -> list[tuple[str, str]]:
    """Each call of `Failure` or `Refused` with a word that is written there."""
    found = []
    for path in (ROOT / "fedpkg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("Failure", "Refused", "_failure")
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[0].value, str)
            ):
                found.append((path.name, node.args[0].value))
    return found


def test_every_failure_word_of_the_code_is_explained() -> None:
    found = literals()
    assert len(found) > 30
    assert {word for _, word in found} <= FAILURES.keys()
    assert set(re.findall(r"\w+", design_failures())) == FAILURES.keys()


def design_failures() -> str:
    """The words that fedpkg/DESIGN.md lists."""
    text = (ROOT / "fedpkg" / "DESIGN.md").read_text()
    listed = re.search(r"\*\*Failures\*\*.*?`(.*?)`.*?\n  `(.*?)`", text, re.DOTALL)
    assert listed is not None
    return f"{listed[1]} {listed[2]}"


def test_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_bytes()
    assert len(text) <= 6 * 1024
    links = re.findall(r"\]\(([^)#]+)", text.decode())
    assert len(links) > 10
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
