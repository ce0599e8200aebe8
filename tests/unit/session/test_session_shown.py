"""A session in a notebook: a table, rows for pandas, and a plot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedpkg.errors import ConfigError, NotFound
from fedpkg.library import prepare
from fedpkg.session.notebook import SHOWN_ROUNDS, as_html
from fedpkg.session.session import Session
from fedpkg.stores.home import Home

MISBEHAVE = Path(__file__).resolve().parents[2] / "packages" / "misbehave"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    home = Home.open(tmp_path_factory.mktemp("Heft") / "ein Heim")
    prepared = prepare(
        {"package": str(MISBEHAVE), "rounds": 2, "clients": {"count": 2}, "executor": {"workers": 2}}, home
    )
    assert prepared._repr_html_() == "<div><b>not started</b> (prepared, 0 rounds finished)</div>"
    prepared.run()
    return Session.open(home)


def test_metrics_are_a_mapping_a_round_which_pandas_takes(session: Session) -> None:
    rows = session.metrics()
    assert isinstance(rows, list) and [row["round"] for row in rows] == [1, 2]
    pandas = pytest.importorskip("pandas")
    assert list(pandas.DataFrame(rows)["round"]) == [1, 2]


def test_a_notebook_shows_a_session_as_a_table_of_its_metrics(session: Session) -> None:
    html = session._repr_html_()
    assert f"<b>{session.id}</b> (finished, 2 rounds finished)" in html
    names = list(session.metrics()[0])
    assert "".join(f"<th>{name}</th>" for name in names) in html
    assert html.count("<tr>") == 3


def test_what_clients_call_their_metrics_is_no_html_and_many_rounds_are_cut() -> None:
    html = as_html("s", "finished", [{"round": n, "<script>": "<b>\x1b[31m"} for n in range(100)])
    assert "<script>" not in html and "&lt;script&gt;" in html and "\x1b" not in html
    assert html.count("<tr>") == SHOWN_ROUNDS + 1 and "<td>99</td>" in html


def test_a_plot_has_a_line_for_each_metric(session: Session, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    name = next(name for name in session.metrics()[0] if "num" not in name and name != "round")
    figure = session.plot(name)
    (line,) = figure.axes[0].lines
    assert (line.get_label(), list(line.get_xdata())) == (name, [1, 2])
    assert list(line.get_ydata()) == [row[name] for row in session.metrics()]
    assert len(session.plot().axes[0].lines) >= 1
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    with pytest.raises(NotFound, match="no round has a number 'acuracy'") as caught:
        session.plot("acuracy")
    assert name in str(caught.value)


def test_a_plot_without_matplotlib_says_how_to_install_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="needs matplotlib") as caught:
        session.plot()
    assert "pip install 'fedpkg[plots]'" in str(caught.value)
