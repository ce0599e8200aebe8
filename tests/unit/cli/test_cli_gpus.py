"""Whole command lines on a machine of four GPUs, as far as nvidia-smi can tell."""

import json
from itertools import pairwise

import numpy as np
import pytest
from cli_support import fedpkg

# A client that computes nothing: it says where it ran, and from when to when.
CLIENT = """\
import json, os, shutil, sys, time
started = time.monotonic()
with open(os.environ["FEDPKG_TASK"]) as file:
    record = json.load(file)
if sys.argv[1] == "train":
    shutil.copyfile(*sys.argv[2:4])
with open(sys.argv[3] + "-metadata" * (sys.argv[1] == "train"), "w") as file:
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    seen = {"gpu": gpu, "device": record["device"], "pid": os.getpid(), "started": started, "ended": time.monotonic()}
    json.dump({"num_examples": 1, **seen}, file)
print(json.dumps(seen))
if record["client_id"] == "client-03" and record["round_number"] == 2:
    sys.exit("no more")
"""


@pytest.fixture
def run_yaml(here):
    package = here / "a client"
    package.mkdir()
    (package / "client.py").write_text(CLIENT)
    commands = {name: {"command": f"python client.py {name}"} for name in ("build", "train", "validate")}
    (package / "fedn.yaml").write_text(json.dumps({"entry_points": commands}))
    np.savez(here / "seed.npz", w=np.zeros(3, np.float32))
    config = {
        "name": "gpus",
        "package": "a client",
        "seed_model": "seed.npz",
        "rounds": 2,
        "clients": {"count": 16},
        "executor": {"name": "resident", "workers": 8, "needs": {"gpus": 0.5}},
    }
    (here / "run.yaml").write_text(json.dumps(config))
    return here / "run.yaml"


def most_at_once(spans):
    """How many of these spans of time overlap at most."""
    changes = sorted([(start, 1) for start, _end in spans] + [(end, -1) for _start, end in spans])
    running = most = 0
    for _time, change in changes:
        running += change
        most = max(most, running)
    return most


def test_federation_of_half_gpus_has_two_tasks_on_each_at_most(run_yaml, here, nvidia_smi):
    nvidia_smi()
    ended = fedpkg("run", run_yaml, "--home", "home", "-v")
    assert ended.code == 0, ended.err
    assert "executor.gpus slots=0:0 1:1 2:2 3:3 4:0 5:1 6:2 7:3" in ended.err
    said = [json.loads(path.read_bytes()) for path in here.glob("home/sessions/*/round-*/*/*/stdout.log")]
    assert len(said) == 2 * 2 * 16
    assert {(one["device"], one["gpu"]) for one in said} <= {("cuda", gpu) for gpu in "0123"}
    for gpu in "0123":
        here_ran = [one for one in said if one["gpu"] == gpu]
        assert most_at_once([(one["started"], one["ended"]) for one in here_ran]) <= 2
        assert len({one["pid"] for one in here_ran}) <= 2 + 2  # two slots; two tasks failed, after which others came


def test_task_that_failed_on_a_gpu_is_repeated_on_one(run_yaml, here, nvidia_smi):
    nvidia_smi()
    assert fedpkg("run", run_yaml, "--home", "home").code == 0
    failed = next(here.glob("home/sessions/*/round-2/client-03/train"))
    assert json.loads((failed / "task.json").read_bytes())["device"] == "cuda"
    words = ["train", "--task", failed, "--client-id", "client-04", "--json"]
    again = fedpkg("package", "call", "a client", *words)
    assert again.code == 0, again.err
    assert again.json()["metadata"]["device"] == "cuda"
    without = fedpkg(
        "package", "call", "a client", "train", "--task", failed, "--client-id", "x", "--gpus", 0, "--json"
    )
    assert (without.json()["metadata"]["device"], without.json()["metadata"]["gpu"]) == ("cpu", "")
    nvidia_smi(script="exit 9")
    nowhere = fedpkg("package", "call", "a client", "train", "--task", failed)
    assert nowhere.code == 3
    assert "no GPU is available (nvidia-smi ended with code 9: no message)" in nowhere.err


def test_seed_that_cannot_be_made_on_a_gpu_is_tried_again_on_one(run_yaml, here, nvidia_smi):
    nvidia_smi()
    ended = fedpkg("run", run_yaml, "--home", "home", "seed_model=null")  # this client cannot build one
    assert ended.code == 8
    assert "build --output seed.npz --gpus 1" in ended.err


def test_run_that_asks_for_more_than_there_is_records_nothing(run_yaml, here, nvidia_smi):
    nvidia_smi()
    ended = fedpkg("run", run_yaml, "--home", "home", "executor.workers=9")
    assert ended.code == 3
    assert "executor.workers is 9, but there is only room for 8 tasks with 0.5 GPU each" in ended.err
    assert fedpkg("session", "list", "--home", "home", "--json").json() == []


def test_session_goes_on_with_the_gpus_that_are_left(run_yaml, here, nvidia_smi):
    nvidia_smi()
    assert fedpkg("run", run_yaml, "--home", "home", "rounds=1").code == 0
    session = fedpkg("session", "list", "--home", "home", "--json").json()[0]["session_id"]
    nvidia_smi("0, GPU-1, L4, 24000, 20000")
    resumed = fedpkg("session", "resume", session, "--home", "home", "--rounds", 2)
    assert resumed.code == 0, resumed.err
    assert "executor.fewer reason=executor.workers is 8; the free GPUs have room for 2 tasks" in resumed.err


def test_models_are_the_same_whatever_the_slots(run_yaml, here, nvidia_smi):
    nvidia_smi()
    digests = []
    for words in (["executor.workers=1"], [], ["executor.workers=3", "executor.needs.gpus=0"]):
        assert fedpkg("run", run_yaml, "--home", "home", *words).code == 0
        digests.append([model["digest"] for model in fedpkg("model", "list", "--home", "home", "--json").json()])
    assert all(one == other for one, other in pairwise(digests))


def test_doctor_lists_gpus_memory_and_what_auto_gives(here, nvidia_smi):
    nvidia_smi()
    findings = {finding["name"]: finding for finding in fedpkg("doctor", "--json").json()}
    assert "executor.workers=auto is " in findings["processors"]["found"]
    assert findings["cuda"]["found"].startswith("4 GPUs, executor.workers=auto is ")
    assert findings["cuda"]["found"].endswith("with executor.needs.gpus=1")
    assert findings["gpu 3"]["found"] == "GPU 3 (NVIDIA L4, 9.4 of 24.2 GB free)"
    assert " GB free" in findings["memory"]["found"]
    nvidia_smi(script="echo ?")
    assert "no GPU: the output of nvidia-smi cannot be parsed: '?'" in fedpkg("doctor").out
