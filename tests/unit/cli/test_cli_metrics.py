"""What is shown of metrics: their averages and what they are averages of; and of clients that write to the terminal."""

import numpy as np
import pytest
from cli_support import fedpkg

NAME = "[bold]acc[/bold]\x1b[2J\u202e\n"  # of a metric
SHOWN = r"[bold]acc[/bold]\x1b[2J\u202e\n"
FEDN_YAML = """
entry_points:
  build: {command: python main.py build}
  train: {command: python main.py train}
  validate: {command: python main.py validate}
"""
# Client 0 measures a loss that is not finite, client 2 has no test data, client 3 fails.
MAIN = f"""
import json, os, sys
import numpy as np

what, *paths = sys.argv[1:]
if what == "build":
    np.savez(paths[0], w=np.zeros(2, "float32"))
    sys.exit()
with open(os.environ["FEDPKG_TASK"]) as file:
    number = json.load(file)["partition_id"]
if what == "train":
    extra = {{"x\\nerror: \\x1b[2J": np.zeros(1)}} if number == 3 else {{}}
    np.savez(paths[1], w=np.load(paths[0])["w"] + 1, **extra)
    with open(paths[1] + "-metadata", "w") as file:
        json.dump({{"num_examples": 980 if number == 2 else 10, "lost": float("nan")}}, file)
elif number == 3:
    sys.exit("\\x1b]0;title\\x07 \\u202eno\\r\\x9b2J")
else:
    right = number != 2
    said = {{{NAME!r}: float(right), "num_examples": 10 * right, "loss": float("nan") if number == 0 else 1.0}}
    with open(paths[1], "w") as file:
        json.dump({{**said, "diverged": float("inf")}}, file)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One round of four such clients: the home, and what was printed."""
    folder = tmp_path_factory.mktemp("metrics")
    (folder / "client").mkdir()
    (folder / "client" / "fedn.yaml").write_text(FEDN_YAML)
    (folder / "client" / "main.py").write_text(MAIN)
    home = folder / "home"
    words = ["--package", folder / "client", "--clients", 4, "--rounds", 1, "executor.name=process", "-v"]
    return home, fedpkg("run", *words, "--home", home)


def test_average_is_of_clients_that_measured_something_and_says_how_many_were_finite(ran):
    _, ended = ran
    assert ended.code == 0, ended.err
    assert f"{SHOWN} 1" in ended.err, "client 2 weighs 0"
    heading, row = ended.out.splitlines()[:2]
    assert heading.split()[4:7] == [SHOWN, "loss", "diverged"]
    assert "1.000 (2 of 3 finite)" in row and "nan (0 of 3 finite)" in row
    assert "not_finite=lost of train (0 of 3 finite), loss of validate (2 of 3 finite), diverged of" in ended.err


@pytest.mark.parametrize("noun", ["metric", "validation"])
def test_a_client_or_round_that_is_not_there_is_an_error(ran, noun):
    home, _ = ran
    client = fedpkg(noun, "list", "--client", "client-9", "--home", home)
    assert client.code != 0 and "has no client 'client-9'" in client.err and "it has 4: client-0" in client.err
    number = fedpkg(noun, "list", "--round", 7, "--home", home)
    assert number.code != 0 and "round 7" in number.err


def test_json_says_what_the_averages_are_of(ran):
    (row,) = fedpkg("session", "show", "--json", "--home", ran[0]).json()["rounds"]
    assert row["metrics"] == {NAME: 1.0, "num_examples": 20.0, "loss": 1.0, "diverged": None}
    assert row["averages"]["validate"] == {
        "num_clients": 3,
        "weight_source": "reply",
        "finite": {"loss": [2, 3], "diverged": [0, 3]},
    }
    shown = fedpkg("session", "show", "--round", 1, "--home", ran[0]).out
    assert "1.000 (2 of 3 finite)" in shown and "weights of metrics" in shown


@pytest.mark.parametrize(
    "words",
    [None, ["session", "show"], ["session", "show", "--round", 1], ["validation", "list"], ["session", "show", "-vv"]],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_nothing_that_a_client_writes_reaches_the_terminal_raw(ran, words, form):
    home, ended = ran
    if words is not None:
        ended = fedpkg(*words, *form, "--home", home)
    elif form:
        return
    for line in (ended.out + ended.err).split("\n"):
        assert line.isprintable(), repr(line)
        assert not line.startswith("error: \\x1b")
    if not form:
        assert SHOWN in ended.out


def test_tail_of_a_log_is_escaped(ran):
    assert r"… \x9b2J" in ran[1].err or r"\x1b]0;title\x07 \u202eno" in ran[1].err
    assert r"extra tensor 'x\nerror: \x1b[2J'" in ran[1].err


def test_table_says_what_the_weights_are_where_clients_do_not_report_them(here):
    from fedpkg.cli.report import rounds_table
    from fedpkg.stores.base import RoundRow

    class Rounds:
        """A store of two rounds."""

        def list_rounds(self, _):
            usual = {"session_id": "s", "cohort": [], "target": 0, "started_at": 0.0, "status": "finished"}
            about = {"validate": {"num_clients": 2, "weight_source": "equal"}}
            first = RoundRow(round_number=1, metrics={"acc": 0.5}, averages=about, **usual)
            about = {"validate": {"num_clients": 2, "weight_source": "train"}}
            return [first, RoundRow(round_number=2, metrics={"acc": None}, averages=about, **usual)]

        def list_models(self, _):
            return []

        list_requests = list_models

    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        rounds_table(Rounds(), "s")
    *table, first, second = out.getvalue().splitlines()
    assert "nan (all weights 0)" in table[-1]
    assert first == (
        "metrics of rounds 1: averaged by equal weights, "
        "as not every client reports num_examples, with its metrics or in training"
    )
    assert second.startswith("metrics of rounds 2: averaged by each client's num_examples in training, as not every")


def test_what_an_error_quotes_cannot_look_like_another_message(ran, here):
    np.savez("seed.npz", **{"w\nerror: all is well\x1b[2J": np.full(2, np.nan, "float32")})
    package = ran[0].parent / "client"
    words = ["--package", package, "--clients", 1, "--rounds", 1, "executor.name=process", "seed_model=seed.npz"]
    ended = fedpkg("run", *words)
    assert ended.code == 3 and r"error: all is well\x1b[2J' has NaN" in ended.err
    assert sum(line.startswith("error:") for line in ended.err.splitlines()) == 1
