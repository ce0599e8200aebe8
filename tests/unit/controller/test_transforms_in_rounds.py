"""Transforms in a federation: what is kept and what travels; and privacy that is spent until nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from at_once import AtOnce
from federation import DRIFTING, Federation

from fedpkg.errors import ConfigError
from fedpkg.formats import model_file
from fedpkg.formats.model_file import read_model

SPARSE = {"name": "fedavg", "transforms": [{"name": "top_k", "share": 0.5}, {"name": "quantise", "bits": 4}]}


def drifting(federation: Federation, strategy: dict[str, Any], *, clients: int = 4, **changes: Any) -> list[str]:
    """Digests of the models of three rounds."""
    config = federation.config(clients=clients, rounds=3, strategy=strategy, package=str(DRIFTING), **changes)
    return federation.digests(federation.run(config).session_id)


def test_what_is_lost_is_added_the_next_time(federation: Federation) -> None:
    half = {"name": "fedavg", "transforms": [{"name": "top_k", "share": 0.5}]}
    session = federation.run(clients=1, rounds=4, strategy=half)
    models = [federation.model(f"{session.session_id}.{number}") for number in range(5)]
    total = sum(float((after[name] - models[0][name]).sum()) for name in models[0].parameters for after in models[-1:])
    count = sum(models[0][name].numel() for name in models[0].parameters)
    kept = federation.home.session_folder(session.session_id) / "clients" / "client-0"
    assert [len(list(version.glob("lost.safetensors"))) for version in kept.iterdir()] == [1]
    # Each round every number should grow by one; half of them travel, the rest is owed.
    assert 0.4 * 4 * count < total < 4 * count


def test_what_travels_is_counted_by_client_and_round(federation: Federation) -> None:
    plain = federation.run(strategy={"name": "fedavg"}, package=str(DRIFTING))
    small = federation.run(
        strategy={"name": "fedavg", "transforms": ["sign", "zstd"], "download_transforms": ["bfloat16"]},
        package=str(DRIFTING),
    )
    counted = []
    for session in (plain, small):
        tasks = federation.store.list_tasks(session.session_id, round_number=1, entry_point="train")
        (request,) = federation.store.list_requests(session.session_id, round_number=1)
        assert request.bytes_up == sum(task.bytes_up for task in tasks)
        assert request.bytes_down == sum(task.bytes_down for task in tasks)
        assert all(task.bytes_up > 0 and task.bytes_down > 0 for task in tasks)
        counted.append(request)
    assert counted[1].bytes_up < 0.8 * counted[0].bytes_up


def test_what_a_client_wrote_does_not_leave_it(federation: Federation) -> None:
    session = federation.run(
        strategy={"name": "fedavg", "transforms": [{"name": "clip", "norm": 0.1}]}, keep={"updates": True}
    )
    (path,) = {
        (federation.home.root / row.path).parent for row in federation.store.list_updates(session.session_id, 1)[:1]
    }
    assert sorted(file.name for file in path.iterdir()) == [
        "received.safetensors",
        "received.safetensors-metadata",
        "sent",
    ]
    assert json.loads((path / "received.safetensors-metadata").read_text())["clipped"] == 1


@pytest.mark.parametrize("executor", ["process", "resident"])
@pytest.mark.every_push("resident")
def test_same_bits_whatever_runs_the_tasks(federation: Federation, executor: str) -> None:
    expected = drifting(federation, SPARSE)
    assert drifting(federation, SPARSE, executor={"name": executor, "workers": 3}) == expected


def test_clients_get_what_the_download_was_decoded_to(federation: Federation) -> None:
    """Of a client that adds one to what it gets, the update is one more than the rounded model."""
    session = federation.run(clients=1, strategy={"name": "fedavg", "download_transforms": ["bfloat16"]})
    before, after = (federation.model(f"{session.session_id}.{number}") for number in (0, 1))
    for name in before.parameters:
        rounded = before[name].bfloat16().to(before[name].dtype)
        assert (after[name] == rounded + 1).all()


def test_an_update_is_opened_once_where_its_task_ran(
    federation: Federation, at_once: AtOnce, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def read(path: Path, **options: Any) -> Any:
        opened.append(path.name)
        return read_model(path, **options)

    monkeypatch.setattr(model_file, "read_model", read)
    federation.run(clients=3, rounds=2, strategy={"name": "fedavg", "transforms": ["delta"]})
    assert opened.count("out.npz") == 1 + 3 * 2, "the seed model, and an update of each client and round"


def package(folder: Path, first: str, train: str) -> str:
    """A package whose model begins as ``first``, and whose clients do ``train`` with ``w``."""
    folder.mkdir()
    commands = "".join(f"  {name}:\n    command: python {name}.py\n" for name in ("build", "train"))
    (folder / "fedn.yaml").write_text(f"entry_points:\n{commands}")
    (folder / "build.py").write_text(f"import sys, numpy\nnumpy.savez(sys.argv[1], w={first})\n")
    (folder / "train.py").write_text(
        "import json, os, sys, numpy\n"
        "task = json.load(open(os.environ['FEDPKG_TASK']))\n"
        "w = numpy.load(sys.argv[1])['w']\n"
        f"{train}\n"
        "numpy.savez(sys.argv[2], w=w)\n"
        "json.dump({'num_examples': 1}, open(sys.argv[2] + '-metadata', 'w'))\n"
    )
    return str(folder)


def failures(federation: Federation, session_id: str, round_number: int) -> dict[str, str | None]:
    tasks = federation.store.list_tasks(session_id, round_number=round_number, entry_point="train")
    return {task.client_id: task.failure for task in tasks}


def test_what_is_owed_must_be_as_it_was_left(federation: Federation, tmp_path: Path) -> None:
    train = """
w = w + numpy.arange(8, dtype='f')
owed = os.path.join(os.environ['FEDPKG_STATE_DIR'], '..', 'lost.safetensors')
if task['round_number'] == 2 and task['client_id'] == 'client-0':
    open(owed, 'wb').write(b'mine')
if task['round_number'] == 2 and task['client_id'] == 'client-1':
    os.unlink(owed)
    os.symlink('/etc/passwd', owed)
"""
    code = package(tmp_path / "package", "numpy.zeros(8, dtype='f')", train)
    session_id = federation.run(rounds=3, package=code, strategy=SPARSE).session_id
    expected = {"client-0": "bad_file", "client-1": "bad_file", "client-2": None}
    assert failures(federation, session_id, 2) == expected
    assert failures(federation, session_id, 3) == dict.fromkeys(expected)
    (task,) = federation.store.list_tasks(session_id, round_number=2, client_id="client-0")
    assert "the residual of error feedback is damaged" in (task.message or "")
    assert Path("/etc/passwd").read_text().startswith("root:")


def test_nothing_that_is_not_finite_arrives(federation: Federation, tmp_path: Path) -> None:
    """Noise drives some numbers of a float16 over its end."""
    code = package(tmp_path / "package", "numpy.zeros(500, dtype='e')", "w = w + (task['client_id'] == 'client-1')")
    noisy = {"name": "fedavg", "transforms": [{"name": "gaussian_noise", "std": 20000.0}]}
    session_id = federation.run(clients=2, package=code, strategy=noisy, round={"required": 1}, seed=3).session_id
    found = failures(federation, session_id, 1)
    assert set(found.values()) <= {None, "not_finite"}
    assert federation.model(f"{session_id}.1").first_non_finite() is None


def test_session_ends_when_the_budget_is_spent(federation: Federation) -> None:
    strategy = {"name": "dp_fedavg", "noise_multiplier": 5.0, "budget": 2.0, "delta": 1e-3}
    session = federation.run(clients=3, rounds=50, strategy=strategy, validation={"every": 50})
    assert session.status == "finished"
    assert "the next round would spend epsilon" in (session.error or "")
    rounds = federation.store.list_rounds(session.session_id)
    spent = [row.strategy_metrics["epsilon"] for row in rounds]
    assert 1 < len(rounds) < 50 and spent == sorted(spent) and 0 < spent[-1] <= 2.0
    assert rounds[-1].metrics, "the last model is validated"
    again = federation.resume(session.session_id, rounds=60)
    assert (again.status, again.error) == (session.status, session.error)
    assert len(federation.store.list_rounds(session.session_id)) == len(rounds)


def test_a_budget_too_small_for_one_round_begins_nothing(federation: Federation) -> None:
    with pytest.raises(ConfigError, match=r"one round spends epsilon [\d.]+; the budget is 0.1"):
        federation.run(strategy={"name": "dp_fedavg", "noise_multiplier": 1.0, "budget": 0.1})
    assert federation.store.list_sessions() == []


def test_clients_may_send_the_difference(federation: Federation, tmp_path: Path) -> None:
    """With whatever becomes of it on its way; buffers stay."""
    train = "w = numpy.full(4, 0.25 + task['partition_id'], dtype='f') if task['reply'] == 'delta' else None"
    code = package(tmp_path / "package", "numpy.ones(4, dtype='f')", train)
    for transforms in ([], ["zstd"], [{"name": "top_k", "share": 1.0}]):
        strategy = {"name": "fedavg", "reply": "delta", "transforms": transforms}
        session_id = federation.run(clients=2, rounds=2, package=code, strategy=strategy).session_id
        assert federation.model(f"{session_id}.2")["w"].tolist() == [2.5] * 4


def test_transforms_that_cannot_be_are_refused_before_anything_runs(federation: Federation) -> None:
    for section, words in (
        ({"transforms": ["zstd", "sign"]}, "transforms: quantise, sign or bfloat16 cannot come after zstd"),
        ({"download_transforms": [{"name": "top_k", "share": 0.1}]}, "TopK is for updates, not for whole models"),
        ({"server_transforms": ["sign"]}, "Sign has error_feedback"),
    ):
        with pytest.raises(ConfigError, match=words):
            federation.run(strategy={"name": "fedavg", **section})
    assert federation.store.list_sessions() == []
