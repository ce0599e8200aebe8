"""`fedpkg experiment table` and `plot`: means over seeds, costs of a target, and what cannot be compared is said."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import Any

import pytest

from fedpkg.experiments.results import Group
from fedpkg.experiments.tables import Table, written
from fedpkg.stores.base import SweepPointRow, SweepRow
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from tests.unit.cli.cli_support import Ended, fedpkg
from tests.unit.reporting.written import write_session


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two learning rates with three seeds each; the larger one reaches 0.9 with every seed, the other with none."""
    root = tmp_path_factory.mktemp("home")
    for name, lr, reaches in (("high", 0.1, 0.95), ("low", 0.01, 0.85)):
        for seed in range(3):
            config = {"arguments": {"train": {"lr": lr}}}
            write_session(root, f"{name}-{seed}", rounds=16, seed=seed, reaches=reaches - 0.01 * seed, config=config)
    return root


def called(root: Path, *words: Any) -> Ended:
    return fedpkg("--home", root, "experiment", *words)


def final(root: Path, session_id: str, metric: str = "test_accuracy") -> float:
    with open_store(Home.open(root), read_only=True) as store:
        value: float = store.list_rounds(session_id)[-1].metrics[metric]
        return value


def test_a_table_has_mean_and_sample_deviation_over_the_seeds(root: Path) -> None:
    document = called(root, "table", "--json").json()
    assert [row["keys"] for row in document["rows"]] == [{"arguments.train.lr": 0.1}, {"arguments.train.lr": 0.01}]
    values = [final(root, f"high-{seed}") for seed in range(3)]
    cell = document["rows"][0]["cells"]["final test_accuracy"]
    assert cell == {
        "mean": pytest.approx(statistics.fmean(values)), "std": pytest.approx(statistics.stdev(values)), "runs": 3
    }  # fmt: skip
    text = called(root, "table").out.splitlines()
    assert (
        text[0].split("  ")[0] == "lr" and f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}" in text[1]
    )


def test_a_target_that_is_never_reached_is_no_number(root: Path) -> None:
    out = called(root, "table", "--to", 0.9).out.splitlines()
    assert out[2].count("not reached") == 3 and "not reached" not in out[1] and "MB ±" in out[1]
    document = called(root, "table", "--to", 0.9, "--json").json()
    assert document["rows"][1]["cells"]["rounds to 0.9"] == {"mean": None, "std": None, "runs": 0}
    with_file = called(root, "table", "--to", 0.9, "-o", root.parent / "t.csv")
    assert with_file.code == 0
    (_, other) = csv.DictReader((root.parent / "t.csv").read_text().splitlines())
    assert other["rounds to 0.9 mean"] == "" and other["rounds to 0.9 runs"] == "0"


def test_a_target_that_some_runs_reach_says_how_many(root: Path) -> None:
    reached = sorted(final(root, f"high-{seed}") for seed in range(3))
    target = reached[0] + 0.03
    cells = called(root, "table", "--to", target, "--json").json()["rows"][0]["cells"]
    number = cells[f"rounds to {target:g}"]["runs"]
    assert 0 < number < 3
    assert f"({number} of 3)" in called(root, "table", "--to", target).out


def test_losses_are_better_when_they_are_lower(root: Path) -> None:
    found = called(root, "table", "--metric", "test_loss", "--json").json()
    assert found["mode"] == "min"
    cells = found["rows"][0]["cells"]
    assert cells["best test_loss"]["mean"] <= cells["final test_loss"]["mean"]
    assert called(root, "table", "--metric", "test_loss", "--mode", "max", "--json").json()["mode"] == "max"


def test_phase_of_a_metric_may_stand_before_its_name(root: Path) -> None:
    wanted = called(root, "table", "--metric", "loss", "--phase", "train", "--json").json()
    for metric in ("train/loss", "train_loss", "loss"):
        assert called(root, "table", "--metric", metric, "--json").json() == wanted
    plain = called(root, "table", "--metric", "validate/test_loss", "--json").json()
    assert plain == called(root, "table", "--metric", "test_loss", "--json").json()


def test_every_format_has_every_row(root: Path, tmp_path: Path) -> None:
    for suffix, begin in (
        (".md", "| lr | runs |"),
        (".tex", "% \\usepackage{booktabs}"),
        (".csv", "arguments.train.lr,"),
    ):
        assert called(root, "table", "-o", tmp_path / f"t{suffix}").code == 0
        text = (tmp_path / f"t{suffix}").read_text()
        assert text.startswith(begin) and "0.01" in text
    latex = (tmp_path / "t.tex").read_text()
    assert "test\\_accuracy" in latex and "$\\pm$" in latex and latex.count("\\\\\n") == 3
    bad = called(root, "table", "-o", tmp_path / "t.docx")
    assert bad.code != 0 and ".tex" in bad.err and not (tmp_path / "t.docx").exists()


def test_sessions_are_named_and_grouped_by_any_key(root: Path) -> None:
    one = called(root, "table", "high-0", "high-1", "--json").json()["rows"]
    assert [row["runs"] for row in one] == [2] and one[0]["keys"] == {}
    by = called(root, "table", "--by", "seed", "--json")
    assert [row["runs"] for row in by.json()["rows"]] == [2, 2, 2]
    assert "also differ in arguments.train.lr" in by.err, "what is pooled is said"
    both = called(root, "table", "--by", "lr,seed", "--json").json()["rows"]
    assert len(both) == 6 and {row["cells"]["best round"]["std"] for row in both} == {None}


def test_a_sweep_is_found_by_its_name_and_by_its_folder_and_its_choices_are_the_keys(tmp_path: Path) -> None:
    home = write_session(tmp_path / "home", "a-1", seed=1)
    write_session(tmp_path / "home", "a-2", seed=2)
    write_session(tmp_path / "home", "b-1", seed=1)
    chosen = [("a-1", "fedavg", 1), ("a-2", "fedavg", 2), ("b-1", "scaffold", 1), (None, "scaffold", 2)]
    points = [
        SweepPointRow(sweep="try", number=k, choices={"method": method, "seed": seed}, session_id=session)
        for k, (session, method, seed) in enumerate(chosen)
    ]
    source = str(tmp_path / "papers" / "first")
    with open_store(home) as store:
        sweep = SweepRow(name="try", kind="grid", source=source, overrides=[], created_at=1.0, updated_at=1.0)
        store.sweeps.create(sweep, points)
    for names in ((), ("try",), (source,)):
        rows = called(home.root, "table", *names, "--json").json()["rows"]
        assert [(row["keys"], row["runs"]) for row in rows] == [({"method": "fedavg"}, 2), ({"method": "scaffold"}, 1)]


def test_bad_words_have_the_nearest_ones(root: Path) -> None:
    for words, told in (
        (["table", "--metric", "test_acuracy"], "did you mean 'test_accuracy'"),
        (["table", "--metric", "loss", "--phase", "validate"], "no run has a metric 'loss' in phase 'validate'"),
        (["table", "--metric", "train/los"], "did you mean 'train/loss'"),
        (["table", "--phase", "validat"], "did you mean 'validate'"),
        (["table", "--by", "alfa"], "did you mean 'alpha'"),
        (["table", "high-9"], "no sweep, folder of a sweep or session 'high-9'; did you mean"),
        (["plot", "-o", "x.pgn"], "did you mean '.png'"),
    ):
        done = called(root, *words)
        assert done.code != 0 and told in done.err, done.err


def test_sessions_without_the_metric_are_named_and_counted(root: Path, tmp_path: Path) -> None:
    home = write_session(tmp_path / "home", "whole")
    write_session(tmp_path / "home", "empty", rounds=0, seed=1, config={"rounds": 5})
    done = called(home.root, "table", "--metric", "test_accuracy")
    assert "1 of 2 runs have no test_accuracy: empty" in done.err and "(1 of 2)" in done.out
    done = called(home.root, "table", "empty")
    assert done.code != 0 and "no round of these sessions has a metric" in done.err
    done = fedpkg("--home", Home.open(tmp_path / "new").root, "experiment", "table")
    assert done.code != 0


@pytest.mark.parametrize("x", ["round", "bytes", "calls", "seconds"])
def test_a_plot_has_a_curve_for_each_group_by_every_axis(root: Path, tmp_path: Path, x: str) -> None:
    done = called(root, "plot", "--x", x, "-o", tmp_path / "p.html", "--json").json()
    assert done["curves"] == ["lr 0.1 (3 runs)", "lr 0.01 (3 runs)"]
    page = (tmp_path / "p.html").read_text()
    assert "mean ± standard deviation" in page and page.count('class="b f1"') >= 2


def test_latex_has_no_character_with_another_meaning() -> None:
    table = Table("acc", "max", None, ["method"], [], [({"method": "50%_<a&b>"}, 1, [])])
    assert "  50\\%\\_\\textless{}a\\&b\\textgreater{} & 1 \\\\" in written(table, "latex")


def test_a_curve_is_named_by_the_keys_that_its_runs_have() -> None:
    of_baseline = {"method": None, "baseline": "local", "client": "client-1"}
    assert Group(of_baseline, []).label == "baseline local, client client-1"
    assert Group({"method": "fedavg", "baseline": "federated", "client": None}, []).label == (
        "method fedavg, baseline federated"
    )


def test_a_plot_is_also_a_picture(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, begin in (("p.png", b"\x89PNG"), ("p.svg", b"<?xml")):
        assert called(root, "plot", "--band", "range", "--log", "-o", tmp_path / name).code == 0
        assert (tmp_path / name).read_bytes().startswith(begin)
