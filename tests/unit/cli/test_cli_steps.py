"""What people see of methods that ask often, with the strategy that a tutorial writes; and homes of older versions."""

import re
import shutil

from cli_support import REPO, fedpkg, write_run_yaml

from fedpkg.stores.database import MIGRATIONS, migrate
from fedpkg.stores.home import Home
from fedpkg.stores.sqlite import SqliteDatabase

QUADRATIC = REPO / "tests" / "packages" / "quadratic"


def test_strategy_of_the_tutorial_runs_and_its_rounds_are_shown(tmp_path):
    code = re.search(
        r"```python\n(from fedpkg.strategies import.*?)```",
        (REPO / "docs" / "tutorials" / "research-strategy.md").read_text(),
        re.DOTALL,
    )
    (tmp_path / "svrg.py").write_text(code[1])
    run_yaml = write_run_yaml(
        tmp_path,
        package=str(QUADRATIC),
        strategy={"file": "svrg.py", "steps": 7},
        arguments={"all": {"drifts": True}, "gradient": {"fails": "client-1@2"}},
        executor={"workers": 2},
    )
    home = tmp_path / "ein Heim"
    ended = fedpkg("run", run_yaml, "--home", home)
    assert ended.code == 0, ended.err
    head, first, *_ = ended.out.splitlines()
    assert head.split()[:7] == ["round", "requests", "clients", "calls", "ok", "failed", "examples"]
    assert first.split()[:2] == ["1", "8"]
    shown = fedpkg("session", "show", "--round", 2, "--home", home).out
    assert re.search(r"asked +3 clients, \d+ ok, \d+ failed, of all calls\nbytes +[\d.]+ kB down, [\d.]+ kB up", shown)
    assert re.search(r"entry point +requests +calls +ok +failed +down +up +seconds\ngradient +8 +10 ", shown)
    assert "client-1/gradient-2 " in shown
    document = fedpkg("session", "show", "--round", 1, "--home", home, "--json").json()
    assert [request["number"] for request in document["requests"]] == list(range(1, 9))
    assert sum(task["request_id"] is not None for task in document["tasks"]) == 10
    plain = fedpkg("run", run_yaml, "strategy.file=null", "strategy.steps=null", "strategy.name=fedavg", "--home", home)
    assert plain.code == 0, plain.err
    assert plain.out.split()[:2] == ["round", "ok"]


def test_home_of_an_older_version_is_brought_up_to_date_by_resume(tmp_path):
    home, older = Home.open(tmp_path / ".fedpkg"), tmp_path / "older"
    older.mkdir()
    for file in sorted(MIGRATIONS.glob("*.sql"))[:3]:
        shutil.copy(file, older)
    database = SqliteDatabase(home.state_db)
    migrate(database, folder=older)
    database.close()
    assert "by an older fedpkg" in fedpkg("session", "list", "--home", home.root).err
    assert "no session" in fedpkg("session", "resume", "--home", home.root).err
    assert fedpkg("session", "list", "--home", home.root).code == 0
