"""``fedpkg run`` and ``session``: what is printed, and how commands end."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
from cli_support import MISBEHAVE, fedpkg, write_run_yaml
from warm import warm_python

from fedpkg.means import means
from fedpkg.stores.sqlite import SqliteStore


def session_of(home):
    return fedpkg("session", "list", "--home", home, "--json").json()[-1]


def test_run_says_a_line_a_round_and_ends_with_a_table_and_the_model(finished):
    home, ended, _ = finished
    session_id = session_of(home)["session_id"]
    lines = ended.err.splitlines()
    assert lines[0] == f"session {session_id}: 3 clients, rounds 1 to 2"
    assert lines[1].startswith("round 1/2  3 ok 0 failed  30 examples  w_mean 1.045  ")
    assert lines[-1].startswith("round 2/2  2 ok 1 failed  20 examples  w_mean 2.045  ")
    table = ended.out.splitlines()
    assert table[0].split() == [
        "round",
        "ok",
        "failed",
        "examples",
        "w_mean",
        "steps",
        "down",
        "up",
        "seconds",
        "model",
    ]
    assert table[2].split()[:6] == ["2", "2", "1", "20", "2.045", "2"]
    assert f"model   {session_id}.2" in table
    assert f"fedpkg session show {session_id} --home '{home}'" in ended.out


def test_a_failed_client_is_named_with_its_log_and_a_command_that_repeats_it(finished):
    _home, ended, _ = finished
    lines = ended.err.splitlines()
    at = lines.index(next(line for line in lines if "client-1, round 2" in line))
    assert "'train' exited with code 1 after " in lines[at]
    assert lines[at + 1].endswith("round-2/client-1/train/stderr.log")
    assert lines[at + 2].endswith("… ValueError: expected 784 features, got 785")
    assert lines[at + 3].startswith("    try      fedpkg package call ")


def test_the_command_that_repeats_a_failed_task_fails_in_the_same_way(finished, environment):
    _home, ended, started_in = finished
    line = next(line for line in ended.err.splitlines() if "fedpkg package call" in line)
    command = f"exec {shlex.join(warm_python())} -m fedpkg {line.partition('fedpkg ')[2]}"
    run = subprocess.run(["bash", "-c", command], cwd=started_in, env=environment, capture_output=True, text=True)
    assert run.returncode == 8
    assert "ValueError: expected 784 features, got 785" in run.stderr


def test_the_command_that_repeats_an_isolated_task_isolates_it_too(here):
    if means().cold is None:
        pytest.skip("no isolation here")
    ended = fedpkg("run", write_run_yaml(here, environment={"MISBEHAVE": "exit3"}, rounds=1), "--isolate")
    assert ended.code == 10
    line = next(line for line in ended.err.splitlines() if "fedpkg package call" in line)
    assert "--isolate" in shlex.split(line)
    session_id = session_of(here / ".fedpkg")["session_id"]
    shown = fedpkg("session", "show", session_id)
    assert "--isolate" in shown.out
    assert fedpkg(*shlex.split(line.partition("fedpkg ")[2]), "--json").code == 8


def test_the_command_that_repeats_a_task_keeps_the_environment_of_the_run(here):
    ended = fedpkg("run", write_run_yaml(here, environment={"MISBEHAVE": "exit3", "WHO": "{client_id}"}, rounds=1))
    assert ended.code == 10
    line = next(line for line in ended.err.splitlines() if "fedpkg package call" in line)
    again = fedpkg(*shlex.split(line.partition("fedpkg ")[2]), "--json")
    assert again.code == 8, "without MISBEHAVE it would have succeeded"
    assert "exited with code 3" in again.json()["error"]["message"]


def test_json_prints_one_event_a_line_and_nothing_else(here):
    plan = {"train": {"plan": '{"client-2": "exit3"}'}}
    ended = fedpkg("run", write_run_yaml(here, arguments=plan), "rounds=1", "--json")
    assert ended.code == 0
    assert ended.err == ""
    events = [json.loads(line) for line in ended.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "session_started" and kinds[-1] == "session_ended"
    assert kinds.count("round_finished") == 1, "rounds=1 overrides the file"
    failed = events[kinds.index("task_failed")]
    assert (failed["client_id"], failed["failure"], failed["exit_code"]) == ("client-2", "exit_code", 3)
    finished = events[kinds.index("round_finished")]
    assert (finished["num_ok"], finished["num_failed"]) == (2, 1)
    assert finished["model"]["path"].endswith(f"{finished['model']['digest']}.npz")


def test_json_has_no_nan(here):
    how = {"validate": {"how": "nan"}}
    ended = fedpkg("run", write_run_yaml(here, arguments=how, rounds=1), "--json")
    assert ended.code == 0
    listed = fedpkg("validation", "list", "--json")
    assert json.loads(listed.out, parse_constant=pytest.fail)[0]["metrics"]["loss"] is None


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("sede=1", 3, "unknown key 'sede'; did you mean 'seed'?"),
        ("package=/nowhere", 4, "package /nowhere does not exist"),
        ("seed_model=/nowhere.npz", 5, "/nowhere.npz"),
    ],
)
def test_what_is_wrong_has_its_exit_code_and_no_traceback(override, code, message, here):
    ended = fedpkg("run", write_run_yaml(here), override)
    assert ended.code == code
    assert message in ended.err
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err
    ended = fedpkg("run", write_run_yaml(here), override, "--json")
    assert json.loads(ended.out)["error"]["exit_code"] == code


def test_a_wrong_configuration_makes_no_home(here):
    fedpkg("run", write_run_yaml(here), "sede=1")
    assert not (here / ".fedpkg").exists()


def test_when_all_clients_fail_the_run_fails_and_says_how_to_go_on(here):
    ended = fedpkg("run", write_run_yaml(here, arguments={"train": {"how": "exit3"}}))
    assert ended.code == 10
    assert "error: round 1: 0 usable updates, 1 are required" in ended.err
    session = session_of(here / ".fedpkg")
    assert session["status"] == "failed"
    assert f"fedpkg session resume {session['session_id']}" in ended.err


def test_many_failures_are_not_all_printed(here):
    arguments = {"train": {"plan": json.dumps({f"client-{i}": "exit3" for i in range(7)})}}
    ended = fedpkg("run", write_run_yaml(here, clients={"count": 8}, arguments=arguments, rounds=1))
    assert ended.code == 0
    assert ended.err.count("exited with code 3") == 5
    assert "more clients fail; all of them: fedpkg session show" in ended.err
    assert "1 ok 7 failed" in ended.err


def test_an_unknown_session_has_exit_code_7(finished):
    home, *_ = finished
    ended = fedpkg("session", "show", "nobody", "--home", home)
    assert ended.code == 7
    assert "there is no session 'nobody'" in ended.err


def test_looking_makes_no_home(here):
    ended = fedpkg("session", "list")
    assert ended.code == 7
    assert "there is no fedpkg home at" in ended.err
    assert not (here / ".fedpkg").exists()


def test_the_home_may_come_before_the_command_or_from_the_environment(finished, monkeypatch):
    home, *_ = finished
    behind = fedpkg("session", "list", "--home", home)
    assert fedpkg("--home", home, "session", "list") == behind
    monkeypatch.setenv("FEDPKG_HOME", str(home))
    assert fedpkg("session", "list") == behind
    assert fedpkg("--json", "session", "list").json()[0]["rounds_done"] == 2


def test_session_show_has_the_configuration_the_rounds_and_the_failures(finished):
    home, *_ = finished
    shown = fedpkg("session", "show", "--home", home)
    assert shown.code == 0
    assert "status           finished" in shown.out
    assert "1 failed task:" in shown.out
    assert "ValueError: expected 784 features, got 785" in shown.out
    document = fedpkg("session", "show", "try", "--home", home, "--json").json()
    assert [row["num_failed"] for row in document["rounds"]] == [0, 1]
    assert [task["client_id"] for task in document["failures"]] == ["client-1"]
    assert document["config"]["rounds"] == 2


def test_session_show_of_a_round_has_every_task_with_its_folder(finished):
    home, *_ = finished
    shown = fedpkg("session", "show", "--round", "2", "--home", home)
    lines = [line for line in shown.out.splitlines() if line.startswith("client-1")]
    assert [line.split()[1:3] for line in lines] == [["train", "failed"], ["validate", "ok"]]
    tasks = fedpkg("session", "show", "--round", "2", "--home", home, "--json").json()["tasks"]
    assert len(tasks) == 6
    assert fedpkg("session", "show", "--round", "9", "--home", home).code == 7


def test_a_session_that_starts_over_is_another_one_with_the_same_configuration(here):
    assert fedpkg("run", write_run_yaml(here), "rounds=1", "seed=7").code == 0
    first = session_of(here / ".fedpkg")
    refused = fedpkg("session", "resume", "--fresh", "--rounds", "2")
    assert refused.code == 3 and "--fresh starts over with the same configuration" in refused.err
    again = fedpkg("session", "resume", "--fresh")
    assert again.code == 0 and "round 1/1" in again.err
    ids = [one["session_id"] for one in fedpkg("session", "list", "--json").json()]
    assert len(set(ids)) == 2 and ids[0] == first["session_id"]
    configs = [fedpkg("session", "show", one, "--json").json()["config"] for one in ids]
    assert configs[0] == configs[1] and configs[1]["seed"] == 7


def test_resume_of_a_finished_session_says_so_and_more_rounds_go_on(here):
    assert fedpkg("run", write_run_yaml(here), "rounds=1").code == 0
    again = fedpkg("session", "resume")
    assert again.code == 0
    assert "all 1 rounds are done already" in again.err
    assert "--rounds 2" in again.err
    for words in (["latest", "round.required=2"], ["round.required=2"]):
        refused = fedpkg("session", "resume", *words)
        assert refused.code == 3
        assert "a session keeps the configuration that it began with: round.required=2 cannot be set" in refused.err
        assert "start a new run: fedpkg run RUN.yaml round.required=2" in refused.err
    assert "fedpkg session resume --rounds 2" in fedpkg("session", "resume", "latest", "rounds=2").err
    assert fedpkg("session", "resume", "latest", "another").code == 2
    more = fedpkg("session", "resume", "latest", "--rounds", "2")
    assert more.code == 0
    assert "round 2/2  3 ok 0 failed" in more.err
    assert len(more.out.partition("\n\n")[0].splitlines()) == 3


def test_stop_of_a_finished_session_changes_nothing(finished):
    home, *_ = finished
    ended = fedpkg("session", "stop", "--home", home)
    assert ended.code == 0
    assert "is finished: nothing to stop" in ended.out
    assert not session_of(home)["stop_requested"]


def events_of(process):
    for line in process.stdout:
        yield json.loads(line)


def start(here, environment, *overrides, python=None):
    words = [*(python or warm_python()), "-m", "fedpkg", "run", str(write_run_yaml(here)), "--json", *overrides]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_stop_from_elsewhere_ends_a_run_in_the_middle_of_a_round(here, environment):
    with start(here, environment, 'arguments.train.plan=\'{"client-0@2": "sleep"}\'') as process:
        events = events_of(process)
        assert next(event for event in events if event["event"] == "round_finished")
        stopped = fedpkg("session", "stop")
        assert "is being stopped; go on later: fedpkg session resume" in stopped.out
        assert list(events)[-1]["status"] == "stopped"
        assert process.wait() == 0
    session = session_of(here / ".fedpkg")
    assert (session["status"], session["rounds_done"]) == ("stopped", 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_which_can_be_resumed(number, here, environment):
    with start(here, environment, 'arguments.train.plan=\'{"client-0@2": "sleep"}\'') as process:
        events = events_of(process)
        next(event for event in events if event["event"] == "round_finished")
        process.send_signal(number)
        process.send_signal(signal.SIGINT)
        rest = list(events)
        assert process.wait() == 130
    assert rest[-1]["error"]["type"] == "Interrupted"
    session = session_of(here / ".fedpkg")
    assert session["status"] == "interrupted"
    assert session["rounds_done"] == 1


@pytest.mark.slow
def test_a_killed_run_is_shown_as_killed(here, environment):
    sleeps = 'arguments.train.plan=\'{"client-0@2": "sleep"}\''
    with start(here, environment, sleeps, python=[sys.executable]) as process:
        next(event for event in events_of(process) if event["event"] == "round_finished")
        assert session_of(here / ".fedpkg")["status"] == "running"
        process.kill()
    assert session_of(here / ".fedpkg")["status"] == "killed"
    shown = fedpkg("session", "show")
    assert f"go on with it: fedpkg session resume {session_of(here / '.fedpkg')['session_id']}" in shown.err


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(here, environment):
    command = f"{sys.executable} -m fedpkg run run.yaml --json | head -n 1"
    write_run_yaml(here)
    run = subprocess.run(["bash", "-o", "pipefail", "-c", command], env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["event"] == "session_started"
    assert session_of(here / ".fedpkg")["status"] == "finished", "who stops looking does not stop the run"


def test_a_session_that_was_given_more_rounds_than_it_has_done_says_how_to_go_on(here):
    assert fedpkg("run", write_run_yaml(here), "rounds=1").code == 0
    assert "go on with it" not in fedpkg("session", "show").err
    with SqliteStore(here / ".fedpkg" / "state.db") as store:
        (session,) = store.list_sessions()
        store.extend_session(session.session_id, {**session.config, "rounds": 2}, 2)
    assert f"go on with it: fedpkg session resume {session.session_id}" in fedpkg("session", "show").err


@pytest.mark.parametrize("words", ["session list", "session list --json", "--help", "nonsense --json"])
def test_a_full_disk_behind_standard_output_is_no_fault_of_fedpkg(words, finished, environment):
    command = f"exec {sys.executable} -m fedpkg {words} > /dev/full"
    variables = {**environment, "FEDPKG_HOME": str(finished[0])}
    run = subprocess.run(["bash", "-c", command], env=variables, capture_output=True, text=True)
    assert "Traceback" not in run.stderr
    if words == "nonsense --json":
        assert run.returncode == 2
    else:
        assert (run.returncode, "No space left on device" in run.stderr) == (1, True)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_error(closed, finished, environment):
    command = f"exec {sys.executable} -m fedpkg session list {closed}"
    variables = {**environment, "FEDPKG_HOME": str(finished[0])}
    run = subprocess.run(["bash", "-c", command], env=variables, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_fault_of_fedpkg_says_so(here, monkeypatch):
    monkeypatch.setattr("fedpkg.session.beginning.run", lambda *_, **__: 1 / 0)
    ended = fedpkg("run", write_run_yaml(here))
    assert ended.code == 70
    assert "ZeroDivisionError" in ended.err
    assert "this is a fault of fedpkg" in ended.err


def test_config_show_says_where_each_value_comes_from(here):
    path = write_run_yaml(here)
    leaves = {leaf["key"]: leaf for leaf in fedpkg("config", "show", path, "rounds=7", "--json").json()}
    assert leaves["rounds"] == {"key": "rounds", "value": 7, "origin": "command line"}
    assert leaves["name"]["origin"].endswith("run.yaml:1")
    assert leaves["seed"]["origin"] == "default"
    assert leaves["package"]["value"] == str(MISBEHAVE)
    shown = fedpkg("config", "show", path, "rounds=7")
    assert [line.split() for line in shown.out.splitlines() if line.startswith("rounds")] == [
        ["rounds", "7", "command", "line"]
    ]


def test_doctor_tells_what_is_there_and_exits_with_0(here):
    findings = {finding["name"]: finding for finding in fedpkg("doctor", "--json").json()}
    assert findings["python"]["state"] == "ok"
    assert findings["torch"]["state"] == "ok"
    assert {finding["state"] for finding in findings.values()} <= {"ok", "missing", "note"}
    assert all(finding["purpose"] for finding in findings.values())
    assert list(here.iterdir()) == []
    shown = fedpkg("doctor")
    assert shown.code == 0
    assert "sqlite" in shown.out


def test_doctor_fails_when_something_is_missing_that_fedpkg_needs(here, monkeypatch):
    monkeypatch.setenv("PATH", str(here))
    ended = fedpkg("doctor")
    assert ended.code == 1
    bash = next(line for line in ended.out.splitlines() if line.startswith("bash"))
    assert bash.split()[1] == "missing"


@pytest.mark.skipif(not hasattr(os, "forkpty"), reason="needs a pseudo-terminal")
@pytest.mark.slow
def test_on_a_terminal_the_progress_is_live_and_leaves_a_clean_screen(here, environment):
    plan = {"train": {"plan": '{"client-1@1": "exit3"}'}}
    cold = {"executor": {"name": "process", "workers": 2}}  # rounds that last longer than the screen needs to be drawn
    words = [*warm_python(), "-m", "fedpkg", "run", str(write_run_yaml(here, arguments=plan, **cold))]
    ours, theirs = os.openpty()
    with subprocess.Popen(
        words, env={**environment, "TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += os.read(ours, 1 << 16)
            except OSError:  # Linux's way to say that nobody has the other end any more
                break
    os.close(ours)
    text = seen.decode()
    assert process.returncode == 0
    assert "starting: the package builds its seed model" in text
    assert "round 1/2" in text and "of 3 clients" in text
    assert "'train' exited with code 3" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is hidden once and comes back"
    after = text.rpartition("\x1b[?25h")[2]
    assert "Look further:" in after
    assert "clients" not in after.partition("Look further:")[0]
