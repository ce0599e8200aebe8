"""Every way in which a client can fail to give what was asked, and what is recorded of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from workbench import Bench, Ran, inline, log

from fedpkg.dispatch.site import PackageOnDisk
from fedpkg.files import remove_tree
from fedpkg.formats.model_file import read_model
from fedpkg.types import ReplyKind
from fedpkg.weights.weights import Weights

# The kind of each of misbehave's ways to train, and words that its message must have.
TRAIN = {
    "exit3": ("exit_code", "'train' exited with code 3 after"),
    "exit_message": ("exit_code", "exited with code 1"),
    "raise": ("exit_code", "exited with code 1"),
    "signal": ("signal", "'train' was killed by SIGSEGV after"),
    "no_file": ("no_file", "the task wrote no 'out.npz'"),
    "empty_file": ("bad_file", "out.npz: the file is empty"),
    "truncated": ("bad_file", "out.npz: "),
    "pickle": ("bad_file", "object"),
    "symlink_out": ("not_a_file", "'out.npz' is a symbolic link"),
    "hardlink_out": ("not_a_file", "'out.npz' has 2 hard links"),
    "fifo_out": ("not_a_file", "'out.npz' is not a regular file"),
    "dir_out": ("not_a_file", "'out.npz' is not a regular file"),
    "huge_out": ("too_big", "'out.npz' had 10000000000 bytes; at most"),
    "nan": ("not_finite", "tensor 'w' has NaN or infinite values"),
    "inf": ("not_finite", "tensor 'w' has NaN or infinite values"),
    "wrong_shape": ("mismatch", "'w'"),
    "broadcast_shape": ("mismatch", "'w'"),
    "wrong_dtype": ("mismatch", "'w'"),
    "missing_tensor": ("mismatch", "'b'"),
    "extra_tensor": ("mismatch", "'c'"),
    "zero_examples": ("num_examples", "num_examples is zero"),
    "negative_examples": ("num_examples", "num_examples is negative: -5"),
    "nan_examples": ("num_examples", "num_examples is NaN"),
    "text_examples": ("num_examples", "num_examples must be a number, not text"),
    "no_examples": ("num_examples", "num_examples is missing"),
    "no_metadata": ("num_examples", "num_examples is missing"),
    "bad_metadata": ("bad_metadata", "is not JSON"),
}
VALIDATE = {
    "exit3": ("exit_code", "'validate' exited with code 3"),
    "raise": ("exit_code", "exited with code 1"),
    "no_file": ("no_file", "the task wrote no 'out.json'"),
    "bad_json": ("bad_json", "is not JSON"),
}


@pytest.fixture(scope="module")
def template(model: Path) -> Weights:
    return read_model(model)


def assert_failed(result: Ran, kind: str, words: str) -> None:
    assert result.status == "failed"
    assert result.failure is not None
    assert result.failure.kind == kind, (result.failure, log(result))
    assert words in result.failure.message
    assert (result.weights, result.num_examples, result.metrics, result.reply) == (None, None, None, None)
    assert not result.task.next_state.exists()  # it left no trace in the client's state
    assert (result.task.folder / "in.npz").exists()  # and can be repeated by hand
    assert result.command.startswith(f"python entrypoint.py {result.task.entry_point} ")


@pytest.mark.parametrize("how", TRAIN)
@pytest.mark.every_push("forkserver|-(exit3|raise|signal|nan|no_file)")
def test_bad_client_is_a_recorded_failure(
    bench: Bench, misbehave: PackageOnDisk, model: Path, template: Weights, tmp_path: Path, how: str
) -> None:
    canary = tmp_path / "canary"
    arguments = {"how": how, "canary": str(canary)}
    result = bench.run(misbehave, "train", model=model, template=template, arguments=arguments)
    assert_failed(result, *TRAIN[how])
    assert not canary.exists()


@pytest.mark.parametrize("how", VALIDATE)
def test_bad_metrics_are_a_recorded_failure(bench: Bench, misbehave: PackageOnDisk, model: Path, how: str) -> None:
    assert_failed(bench.run(misbehave, model=model, arguments={"how": how}), *VALIDATE[how])


def test_honest_client_is_taken_as_it_is(
    bench: Bench, misbehave: PackageOnDisk, model: Path, template: Weights
) -> None:
    result = bench.run(misbehave, "train", model=model, template=template)
    assert (result.status, result.failure, result.num_examples, result.exit_code) == ("ok", None, 10.0, 0)
    assert result.weights is not None
    assert torch.equal(result.weights["w"], template["w"] + 1)
    assert result.reply is not None
    assert result.reply.parent != result.task.folder
    assert not (result.task.folder / "in.npz").exists()
    assert result.metadata == {"num_examples": 10}
    assert result.wall_s >= result.phases["stage"] > 0
    metrics = bench.told(misbehave, model=model)
    assert metrics["num_examples"] == 10
    assert metrics["w_mean"] == pytest.approx(float(template["w"].mean()))


def test_last_lines_of_the_log_come_with_the_failure(bench: Bench, misbehave: PackageOnDisk, model: Path) -> None:
    for how, line in (("raise", "ValueError: expected 784 features, got 785"), ("exit3", "about to give up")):
        assert bench.run(misbehave, "train", model=model, arguments={"how": how}).log_tail.endswith(line)


def test_missing_program_is_a_recorded_failure(bench: Bench, tmp_path: Path) -> None:
    result = bench.run(inline(tmp_path, "", "no-such-program --fast"))
    assert result.failure is not None
    assert (result.failure.kind, result.exit_code) == ("exit_code", 127)
    assert "no-such-program" in result.log_tail


def test_metadata_must_be_a_file_of_its_own(bench: Bench, tmp_path: Path) -> None:
    code = """
    out = sys.argv[-1]
    tell()
    os.symlink('/etc/hostname', out + '-metadata')
    """
    result = bench.run(inline(tmp_path, code))
    assert result.failure is not None
    assert result.failure.message.startswith("'out.json-metadata' is a symbolic link")


def test_what_a_task_puts_in_the_place_of_its_logs_gives_way(bench: Bench, tmp_path: Path) -> None:
    code = """
    folder = os.path.dirname(sys.argv[-1])
    print('said', flush=True)
    tell()
    for name, other in (('stdout', lambda path: os.symlink('/etc/hostname', path)), ('stderr', os.mkfifo)):
        path = f'{folder}/{name}.log'
        while not os.path.exists(path):
            pass
        os.unlink(path)
        other(path)
    """
    task = bench.run(inline(tmp_path, code)).task
    assert [(task.folder / f"{name}.log").is_symlink() for name in ("stdout", "stderr")] == [False, False]
    assert (task.folder / "stdout.log").read_text() == "said\n"
    assert (task.folder / "stderr.log").is_file()


def test_reply_limit_counts_the_models_own_size(bench: Bench, misbehave: PackageOnDisk, model: Path) -> None:
    result = bench.run(misbehave, "train", model=model, reply_bytes=100)
    assert result.failure is not None
    assert result.failure.kind == "too_big"
    assert "limits.reply_bytes" in result.failure.message


@pytest.mark.parametrize(
    "code",
    [
        "tell(); import shutil; shutil.rmtree(folder)",
        "tell(); import shutil; shutil.rmtree(folder); open(folder, 'w')",
        "tell(); os.remove(sys.argv[1]); os.makedirs(sys.argv[1] + '/deep')",
        "import shutil; shutil.rmtree(os.getcwd()); tell()",
        "open(sys.argv[-1], 'wb').write(b'[' * 200_000)",
        "open(sys.argv[-1], 'wb').write(b'9' * 10_000)",
        "open(sys.argv[-1], 'wb').write(b'\\xff')",
        "os.chmod(folder, 0); os.chmod('.', 0)",
        "tell(); os.symlink('/', 'root'); os.mkfifo('fifo')",
        "tell()\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')",
        "tell()\nos.makedirs(folder + '.reply/junk')\nopen(folder + '.reply/out.json', 'w')",
        "tell()\nos.mkdir(folder + '.reply')\nos.chdir(folder + '.reply')\n"
        "for _ in range(1500): os.mkdir('d'); os.chdir('d')",
        "tell()\nos.symlink('/', folder + '.reply')",
    ],
)
@pytest.mark.every_push("forkserver|-code")
def test_no_mischief_breaks_the_executor(bench: Bench, model: Path, tmp_path: Path, code: str) -> None:
    prefix = "folder = os.path.dirname(sys.argv[-1])\n"
    results = [bench.run(inline(tmp_path, prefix + code), model=model)]
    if results[0].status == "ok":  # what it left is the client's state from now on
        results.append(bench.run(inline(tmp_path, "tell()"), state=results[0].task.next_state))
    assert results[-1].status in ("ok", "failed")
    for result in results:
        remove_tree(result.task.folder.parent)
    assert bench.told(inline(tmp_path, "tell(fine=True)")) == {"fine": True}


def test_results_and_seeds_are_taken_without_looking_inside(bench: Bench, misbehave: PackageOnDisk) -> None:
    result = bench.run(misbehave, "build", reply_kind=ReplyKind.SEED)
    assert result.reply is not None
    assert {name: tuple(tensor.shape) for name, tensor in read_model(result.reply).items()} == {
        "w": (10, 32),
        "b": (10,),
        "steps": (),
    }


BUILD = "import numpy as np, pathlib\npath = pathlib.Path(sys.argv[1])\npath.parent.mkdir(exist_ok=True)\n"
BUILD += "with open(path, 'wb') as file: np.savez(file, w=np.zeros(2))"


@pytest.mark.parametrize(
    "name", ["../init_model.npz", "first.npz", "'models/first.npz'", "x.safetensors", "'../a b.npz'"]
)
@pytest.mark.every_push("forkserver")
def test_build_may_write_the_file_that_its_command_names(bench: Bench, tmp_path: Path, name: str) -> None:
    package = inline(tmp_path, BUILD, command=f"python entrypoint.py {name}")
    result = bench.run(package, reply_kind=ReplyKind.SEED)
    assert result.reply is not None, (result.failure, log(result))
    assert result.reply.name == Path(name.strip("'")).name and list(read_model(result.reply)) == ["w"]


@pytest.mark.parametrize("name", ["../../../../taken.npz", "{folder}/taken.npz"])
def test_file_that_build_writes_elsewhere_stays_there(bench: Bench, tmp_path: Path, name: str) -> None:
    """Whose it is, nobody knows: it may be a file that the person has."""
    name = name.format(folder=tmp_path)
    result = bench.run(inline(tmp_path, BUILD, command=f"python entrypoint.py '{name}'"), reply_kind=ReplyKind.SEED)
    assert result.failure is not None and result.failure.kind == "no_file"
    assert f"the command names '{name}', but there is no such file in the package's folder" in result.failure.message


def send_sets(tmp_path: Path, code: str, examples: str = "3") -> PackageOnDisk:
    """A client whose reply are the arrays named in ``arrays``; ``model`` is what it was given."""
    script = f"""
import json, sys, numpy as np
source, target = [word for word in sys.argv if word.startswith("/")]
model = dict(np.load(source))
{code}
np.savez(target, **arrays)
json.dump({{"num_examples": {examples}}}, open(target + "-metadata", "w"))
"""
    return inline(tmp_path, script)


HONEST = (
    "arrays = {f'control/{name}': model[name] * 0 for name in 'wb'} | {f'x/{name}': model[name] + 1 for name in 'wb'}"
)
BAD_SETS = {
    "other_file": ("open(target, 'wb').write(b'junk'); sys.exit()", "num_examples", "absent"),
    "plain_update": ("arrays = model", "mismatch", "missing set 'x'"),
    "missing_set": (f"{HONEST}; del arrays['x/w'], arrays['x/b']", "mismatch", "missing set 'x'"),
    "extra_set": (f"{HONEST}; arrays['y/w'] = model['w']", "mismatch", "extra set 'y'"),
    "no_set": (f"{HONEST}; arrays['w'] = model['w']", "bad_file", "tensor 'w': its key has no name of a set"),
    "missing_tensor": (f"{HONEST}; del arrays['control/b']", "mismatch", "set 'control': missing tensor 'b'"),
    "buffer": (f"{HONEST}; arrays['x/steps'] = model['steps']", "mismatch", "set 'x': extra tensor 'steps'"),
    "shape": (f"{HONEST}; arrays['x/w'] = model['w'][:1]", "mismatch", "set 'x': tensor 'w' has shape (1, 32)"),
    "nan": (f"{HONEST}; arrays['control/b'][3] = np.nan", "not_finite", "set 'control': tensor 'b' has NaN"),
}


@pytest.mark.parametrize("how", BAD_SETS)
@pytest.mark.every_push("forkserver|resident")
def test_bad_sets_are_a_recorded_failure(
    bench: Bench, model: Path, template: Weights, tmp_path: Path, how: str
) -> None:
    code, kind, words = BAD_SETS[how]
    package = send_sets(tmp_path, code)
    result = bench.run(
        package, model=model, template=template, reply_kind=ReplyKind.SETS, sets={"x": None, "control": None}
    )
    assert result.failure is not None, log(result)
    if how == "other_file":  # it is no model file before it lacks its metadata
        kind, words = "bad_file", "neither an .npz nor"
    assert (result.status, result.failure.kind, result.sets) == ("failed", kind, {})
    assert words in result.failure.message


@pytest.mark.parametrize(("examples", "words"), [("0", "is zero"), ("'many'", "not text"), ("float('nan')", "is NaN")])
def test_sets_need_a_number_of_examples(
    bench: Bench, model: Path, template: Weights, tmp_path: Path, examples: str, words: str
) -> None:
    package = send_sets(tmp_path, HONEST, examples.replace("'", '"'))
    result = bench.run(
        package, model=model, template=template, reply_kind=ReplyKind.SETS, sets={"x": None, "control": None}
    )
    assert result.failure is not None, log(result)
    assert result.failure.kind == "num_examples"
    assert words in result.failure.message


def test_sets_come_in_the_order_of_the_task(bench: Bench, model: Path, template: Weights, tmp_path: Path) -> None:
    package = send_sets(tmp_path, f"{HONEST}; arrays['bn/mean'] = np.ones(4)")
    sets = {"x": None, "bn": Weights({"mean": torch.zeros(4, dtype=torch.float64)}), "control": None}
    result = bench.run(package, model=model, template=template, reply_kind=ReplyKind.SETS, sets=sets)
    assert (result.status, result.num_examples, result.weights) == ("ok", 3.0, None), log(result)
    assert list(result.sets) == ["x", "bn", "control"]
    assert list(result.sets["x"]) == list(result.sets["control"]) == ["w", "b"]  # without the counter
    assert torch.equal(result.sets["x"]["w"], template["w"] + 1)
    assert result.sets["control"]["b"].abs().sum() == 0


def test_other_suffixes_reach_the_client_and_come_back(bench: Bench, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    seed = tmp_path / "seed.safetensors"
    save_file({"w": np.ones(3, np.float32)}, seed)
    code = """
    import shutil
    source, target = sys.argv[1:3]
    shutil.copyfile(source, target)
    json.dump({"num_examples": 2}, open(target + "-metadata", "w"))
    """
    package = inline(tmp_path, code)
    result = bench.run(package, model=seed, suffix=".safetensors", reply_kind=ReplyKind.UPDATE)
    assert result.status == "ok", log(result)
    assert result.weights is not None
    assert result.weights["w"].tolist() == [1, 1, 1]
    assert result.reply is not None
    assert result.reply.name == "out.safetensors"
