"""``fedpkg sampler``, and what people see of drop-outs, held-out clients and virtual time."""

import re

from cli_support import REPO, fedpkg, write_run_yaml

DRIFTING = REPO / "tests" / "packages" / "drifting"
MINE = """
from fedpkg.samplers import register_sampler


@register_sampler("my_own")
def mine(strength: float = 2.0):
    '''My own.'''
"""


def test_samplers_are_listed_with_the_keys_of_all():
    listed = fedpkg("sampler", "list")
    assert listed.code == 0 and "power_of_choice  Draw candidates in proportion" in listed.out
    for key in ("fraction_train", "over_selection", "availability", "dropout", "held_out"):
        assert re.search(rf"^  {key}: .*; default .*\n      [A-Z]", listed.out, re.MULTILINE)
    document = {one["name"]: one for one in fedpkg("sampler", "list", "--json").json()}
    metric = {"name": "metric", "type": "text", "required": False, "default": "loss"}
    assert document["importance"]["parameters"][0].items() >= metric.items()


def test_sampler_is_shown_with_its_paper_and_parameters(tmp_path):
    shown = fedpkg("sampler", "show", "power_of_choice").out
    assert (
        "arXiv:2010.01243" in shown and "  fraction_train: a number above 0, at most 1 or null; default null\n" in shown
    )
    assert "  candidates: a whole number from 1 or null; default null\n      Number d of clients to draw" in shown
    unknown = fedpkg("sampler", "show", "power_of_choise")
    assert unknown.code == 3 and "did you mean 'power_of_choice'?" in unknown.err
    (tmp_path / "mine.py").write_text(MINE)
    assert "My own." in fedpkg("sampler", "show", "my_own", "--file", tmp_path / "mine.py").out


def test_drop_outs_held_out_clients_and_virtual_time_are_shown(tmp_path):
    run_yaml = write_run_yaml(
        tmp_path,
        package=str(DRIFTING),
        clients={"count": 4},
        rounds=1,
        sampler={"name": "least_reused", "dropout": 0.7, "held_out": ["client-3"]},
        clock={},
        seed=1,
    )
    home = tmp_path / "ein Heim"
    ended = fedpkg("run", run_yaml, "--home", home)
    assert ended.code == 0, ended.err
    assert "dropped out" not in ended.err, "that was ordered"
    assert re.search(r"round 1/1  \d ok [12] failed", ended.err)
    shown = fedpkg("session", "show", "--home", home).out
    assert re.search(r'sampler.name +"least_reused"\nsampler.dropout +0.7', shown)
    assert re.search(r"^held out +client-3$", shown, re.MULTILINE)
    assert re.search(r"mean +held_out/mean .* virtual time", shown)
    assert re.search(r"[12] times? a client dropped out, by sampler.dropout", shown)
    tasks = fedpkg("session", "show", "--round", 1, "--home", home).out
    assert re.search(r"client-\d +train +failed .* dropped out, by sampler.dropout", tasks)
    assert re.search(r"^held_out/mean +\S+$", tasks, re.MULTILINE)
