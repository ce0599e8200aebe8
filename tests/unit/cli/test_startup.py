"""The entry point `startup`: skipped, failing, and told of."""

import shlex

import pytest
from cli_support import fedpkg
from packages_on_data import EVERYWHERE, model, run, write_client, write_data


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.every_push("forkserver")
def test_startup_that_would_download_can_be_skipped(here, where):
    train = 'save(np.loadtxt("data/x.csv", delimiter=","), sys.argv[2])'
    write_client(here / "client", train, startup="echo cannot reach the archive; exit 3")
    write_data(here / "d")
    ended = run("startup=skip", where=where)
    assert ended.code == 0, ended.err
    assert model() == [1.5, 2.5, 3.5]


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.every_push("isolated")
def test_startup_that_fails_names_its_own_log_and_is_repeated_by_its_name(here, where):
    write_client(here / "client", "save([1, 2, 3], sys.argv[2])", startup="echo starting up; exit 3")
    write_data(here / "d", numbers=(1,))
    ended = run(where=where)
    assert ended.code != 0 and "1, round 1: 'startup' exited with code 3" in ended.err
    (log,) = here.glob(".fedpkg/sessions/*/round-1/1/train/startup.stdout.log")
    assert f"    stdout   {log.relative_to(here)}" in ended.err and "stderr  " not in ended.err
    assert "… starting up" in ended.err and log.read_text() == "starting up\n"
    (line,) = [line for line in ended.err.splitlines() if "fedpkg package call client startup --task " in line]
    repeated = fedpkg(*shlex.split(line.split("try")[1])[1:])
    assert repeated.code != 0 and "'startup' exited with code 3" in repeated.err


def test_startup_that_downloads_is_skipped_where_data_is_given(here):
    train = 'save(np.loadtxt(os.environ["FEDN_DATA_PATH"] + "/x.csv", delimiter=","), sys.argv[2])'
    write_client(here / "client", train, startup="python data.py")
    (here / "client" / "data.py").write_text("from urllib.request import urlopen\nurlopen('http://127.0.0.1:9/x')")
    write_data(here / "d")
    ended = run()
    assert ended.code == 0, ended.err
    assert (
        "startup  skipped, as data.py:1 downloads and data is given (startup=run or startup=once runs it)" in ended.err
    )
    assert model() == [1.5, 2.5, 3.5]
    ended = run("startup=run")
    assert ended.code != 0 and "'startup' exited with code 1" in ended.err and "startup  skipped" not in ended.err
