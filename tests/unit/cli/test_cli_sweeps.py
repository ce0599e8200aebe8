"""`fedpkg experiment sweep`, `list`, `show`, `resume`, `stop`, and `--baseline`."""

import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cli_support import REPO, fedpkg, write_run_yaml
from warm import warm_python

from fedpkg.cli.sweep_progress import choices_text
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

DRIFTING = REPO / "tests" / "packages" / "drifting"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of four points of which one fails: its home, and how it ended."""
    folder = tmp_path_factory.mktemp("färdigt svep")
    plan = "arguments.train.plan='{\"client-0\":\"raise\"}','{}'"
    path = write_run_yaml(folder, rounds=1, round={"required": 3})
    ended = fedpkg("experiment", "sweep", path, plan, "seed=1,2", "--parallel", 2, "--home", folder / "a home")
    return folder / "a home", ended


def test_sweep_says_what_it_needs_a_line_for_each_point_and_a_table(swept):
    _home, ended = swept
    assert ended.code == 10
    assert "sweep try: 4 points\n  24 tasks: about 1 MB of disk without the models" in ended.err
    lines = [line for line in ended.err.splitlines() if " of 4  point " in line]
    counts, points = zip(*(line.split("  ")[:2] for line in lines), strict=True)
    assert counts == tuple(f"{n} of 4" for n in (1, 2, 3, 4))
    assert sorted(points) == [f"point {n}" for n in range(4)], "two run at once: either may end first"
    assert sum("failed" in line for line in lines) == 2
    assert "error: 2 of 4 points of sweep try failed" in ended.err and "experiment resume try" in ended.err
    header, *rows = [line for line in ended.out.splitlines() if "try-" in line or line.startswith("point ")][:5]
    assert header.split() == ["point", "arguments.train.plan", "seed", "status", "done", "w_mean", "session"]
    assert [row.split()[-1].rsplit("-", 2)[0] for row in rows] == [f"try-{n}" for n in range(4)]


def test_list_and_show_have_the_points_for_people_and_programs(swept):
    home, _ = swept
    told = fedpkg("experiment", "list", "--home", home)
    assert told.out.splitlines()[1].split()[:6] == ["try", "finished", "grid", "4", "2", "2"]
    (listed,) = fedpkg("experiment", "list", "--home", home, "--json").json()
    assert listed["points"] == {"failed": 2, "finished": 2}
    shown = fedpkg("experiment", "show", "--home", home)
    assert "0 usable" not in shown.out and "2 usable updates, 3 are required" in shown.out
    document = fedpkg("experiment", "show", "try", "--home", home, "--json").json()
    assert [point["status"] for point in document["points"]] == ["failed", "failed", "finished", "finished"]
    assert document["points"][2]["choices"] == {"arguments.train.plan": "{}", "seed": 1}
    missing = fedpkg("experiment", "show", "tri", "--home", home)
    assert missing.code == 7 and "did you mean 'try'?" in missing.err


def test_stop_and_resume_of_a_sweep_that_does_not_run(swept):
    home, _ = swept
    assert "try does not run: nothing to stop" in fedpkg("experiment", "stop", "--home", home).out
    again = fedpkg("experiment", "resume", "--home", home, "--json")
    events = [json.loads(line) for line in again.out.splitlines()]
    assert again.code == 10 and events[0]["event"] == "sweep_started"
    assert {one["number"] for one in events if one.get("event") == "point"} == {0, 1}, "only those that failed"


def test_choices_are_written_as_they_were_given():
    choices = {"lr": 0.01, "drawn": 0.08558894657793088, "method": "fedavg", "rounds": 100000, "layers": [8, 4]}
    assert choices_text(choices) == "lr=0.01 drawn=0.08559 method=fedavg rounds=100000 layers=[8, 4]"


def test_points_that_cannot_be_composed_need_another_file_or_another_sweep(here):
    ended = fedpkg("experiment", "sweep", write_run_yaml(here), "rounds=1,-1", "--name", "half")
    assert ended.code == 10 and "1 of 2 points of sweep half failed" in ended.err
    assert "correct their files and try again with" in ended.err and "experiment resume half" in ended.err


def test_words_that_exclude_each_other_are_refused(here):
    path = write_run_yaml(here)
    for words, message in [
        (["--zip", "--random", 3], "--zip and --random exclude each other"),
        (["--search", 3], "a search needs a metric"),
        (["--metric", "loss"], "metric, minimise and prune have no effect on a grid sweep"),
        (["--search", 3, "--metric", "a", "--baseline", "local"], "a search has no baselines"),
        (["a.b=range(1000)", "rounds=range(1,1001)"], "2,000,000 points, and at most 1,000 are allowed"),
    ]:
        ended = fedpkg("experiment", "sweep", path, "seed=1,2", *words)
        assert ended.code in (2, 3) and message in " ".join(ended.err.split()), (words, ended.err)


@pytest.mark.slow
@pytest.mark.every_push("run$")
@pytest.mark.parametrize("command", [["run"], ["experiment", "sweep"]], ids=" ".join)
def test_baselines_are_points_beside_the_run(here, command):
    path = write_run_yaml(here, rounds=1, clients={"count": 2})
    ended = fedpkg(*command, path, "--baseline", "local", "--home", here / "home")
    assert ended.code == 0, ended.err
    document = fedpkg("experiment", "show", "--home", here / "home", "--json").json()
    assert [(point["baseline"], point["choices"]) for point in document["points"]] == [
        ("", {}),
        ("local", {"client": "client-0"}),
        ("local", {"client": "client-1"}),
    ]
    assert document["source"] == str(path)
    refused = fedpkg(*command, path, "--baseline", "centralised", "--home", here / "home")
    assert refused.code == 3 and "'centralised' needs data that fedpkg splits" in refused.err


@pytest.mark.slow
def test_stop_from_another_terminal_while_one_display_shows_all_points(here, environment):
    gates = {"arguments": {"train": {"gate": "client-0@1", "arrivals": str(here)}}}
    path = write_run_yaml(here, package=str(DRIFTING), clients={"count": 1}, **gates)
    main, terminal = pty.openpty()
    words = ["experiment", "sweep", path, "seed=1,2", "--parallel", "2", "--home", here / "home"]
    process = subprocess.Popen(
        [*warm_python(), "-m", "fedpkg", *map(str, words)], env={**environment, "TERM": "xterm"}, stderr=terminal,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(terminal)
    seen = bytearray()

    def read():
        try:
            while data := os.read(main, 4096):
                seen.extend(data)
        except OSError:  # the terminal is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    while not (b"seed=1" in seen and b"seed=2" in seen and b"0 of 2 points" in seen):
        assert process.poll() is None, seen.decode()
    told = fedpkg("experiment", "stop", "--home", here / "home", "--json")
    assert told.json()["stop_requested"] is True
    assert process.wait(60) == 130
    reader.join()
    os.close(main)
    assert b"0 of 2 points of sweep try are finished" in seen
    with open_store(Home(Path(here / "home")), read_only=True) as store:
        assert store.sweeps.get("try").status == "interrupted"


@pytest.mark.soak
def test_plain_run_imports_nothing_of_sweeps(here, environment):
    path = write_run_yaml(here, rounds=1, clients={"count": 1})
    code = (
        "import sys\nfrom fedpkg.cli.main import run_command\n"
        f"assert run_command(['run', {str(path)!r}, '--home', {str(here / 'home')!r}]) == 0\n"
        "print(sorted({'hydra', 'optuna', 'sqlalchemy'} & sys.modules.keys()))"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
