"""A run.yaml and its overrides: values, origins, paths, and what is refused with which words."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from fedpkg.config import ClientsConfig, DataConfig, RunConfig, dump_config
from fedpkg.config_reading import LoadedConfig, config_from_json, load_config, render
from fedpkg.errors import ConfigError

NAME = "clients.data.partition.name"
MINIMAL = "package: pkg\nrounds: 3\nclients: {count: 4}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "ein Lauf · λ [1]"
    path.mkdir()
    return path


def load(folder: Path, text: str, *overrides: str) -> LoadedConfig:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def refusal(folder: Path, text: str, *overrides: str) -> str:
    """The message, with the file's path shortened to its name."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    return caught.value.message.replace(f"{folder}/", "")


def test_minimal_file_gives_the_defaults(folder: Path) -> None:
    loaded = load(folder, MINIMAL)
    assert loaded.config == RunConfig(package=str(folder / "pkg"), rounds=3, clients=ClientsConfig(count=4))


def test_every_leaf_knows_its_origin(folder: Path) -> None:
    text = MINIMAL + "\nsampler:\n  fraction_train: 0.5\narguments:\n  train: {lr: 0.1}\n"
    loaded = load(folder, text, "rounds=5", "arguments.train.epochs=2")
    origins = {key: origin.replace(f"{folder}/", "") for key, origin in loaded.origins.items()}
    assert origins["package"] == "run.yaml:1"
    assert origins["rounds"] == "command line"
    assert origins["clients.count"] == "run.yaml:3"
    assert origins["sampler.fraction_train"] == "run.yaml:6"
    assert origins["validation.fraction"] == "default"
    assert origins["arguments.train.lr"] == "run.yaml:8"
    assert origins["arguments.train.epochs"] == "command line"
    assert origins["environment"] == "default"
    assert origins["clients.data"] == "default"


def test_render_lists_key_value_and_origin_of_every_leaf(folder: Path) -> None:
    rows = render(load(folder, MINIMAL, "sampler.fraction_train=0.5"))
    assert ("sampler.fraction_train", 0.5, "command line") in rows
    assert ("executor.workers", "auto", "default") in rows
    assert rows[0] == ("package", str(folder / "pkg"), f"{folder}/run.yaml:1")
    assert len(rows) == len({key for key, _value, _origin in rows})


def test_a_section_put_aside_by_an_override_leaves_no_origin_behind(folder: Path) -> None:
    text = "package: p\nrounds: 1\nclients:\n  count: 2\n  data: {dataset: a.npz, partition: {alpha: 3}}\n"
    loaded = load(folder, text, "clients.data=null", "clients.data.dataset=sklearn/iris")
    assert loaded.config.clients.data == DataConfig(dataset="sklearn/iris")
    assert loaded.origins["clients.data.partition"] == "default"
    assert load(folder, text, "clients.data=null").origins["clients.data"] == "command line"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-0.5", -0.5),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("100_000", 100_000),
        ("0x1f", 31),
        ("true", True),
        ("null", None),
        ("", None),
        ("[1,2]", [1, 2]),
        ("a=b=c", "a=b=c"),
        ("'3'", "3"),
        ("no", "no"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("*.csv", "*.csv"),
        ("#fff", "#fff"),
        ("@home", "@home"),
        ("http://host:80/x", "http://host:80/x"),
        ("größer als α", "größer als α"),
    ],
)
def test_override_values_are_yaml(folder: Path, text: str, value: object) -> None:
    loaded = load(folder, MINIMAL, f"arguments.train.x={text}")
    assert loaded.config.arguments == {"train": {"x": value}}
    assert type(loaded.config.arguments["train"]["x"]) is type(value)


def test_override_with_a_mapping_for_a_section_of_fixed_keys_merges_key_by_key(folder: Path) -> None:
    loaded = load(folder, MINIMAL + "executor: {workers: 1, needs: {gpus: 2}}\n", "executor={workers: 3, needs: {}}")
    assert (loaded.config.executor.workers, loaded.config.executor.needs.gpus) == (3, 2)


def test_the_last_override_wins(folder: Path) -> None:
    assert load(folder, MINIMAL, "rounds=4", "rounds=5").config.rounds == 5


def test_interpolation_takes_values_of_other_keys_and_of_overrides(folder: Path) -> None:
    text = MINIMAL + "run_config: {lr: 0.1}\narguments:\n  all: {lr: '${run_config.lr}', tag: 'run-${seed}'}\n"
    loaded = load(folder, text, "seed=7", "run_config.lr=0.5")
    assert loaded.config.arguments == {"all": {"lr": 0.5, "tag": "run-7"}}
    assert loaded.origins["arguments.all.lr"] == f"{folder}/run.yaml:6"


def test_a_whole_section_can_be_interpolated(folder: Path) -> None:
    text = MINIMAL + "arguments:\n  train: {lr: 1}\n  validate: ${arguments.train}\n"
    loaded = load(folder, text)
    assert loaded.config.arguments["validate"] == {"lr": 1}
    assert loaded.origins["arguments.validate.lr"].endswith("run.yaml:6")


def test_merge_keys_of_yaml_work_and_own_keys_win(folder: Path) -> None:
    text = MINIMAL + "arguments:\n  train: &t {lr: 1, b: 2}\n  validate:\n    <<: *t\n    b: 3\n"
    assert load(folder, text).config.arguments["validate"] == {"lr": 1, "b": 3}


def test_environment_values_are_text_as_written(folder: Path) -> None:
    text = MINIMAL + "environment: {A: 1.10, B: 0755, C: true, D: '${seed}', E: ''}\n"
    loaded = load(folder, text, "environment.F=1.20")
    assert loaded.config.environment == {
        "A": "1.10",
        "B": "0755",
        "C": "true",
        "D": "0",
        "E": "",
        "F": "1.20",
    }
    assert load(folder, text, "environment={G: 1.20}").config.environment == {"G": "1.20"}


def test_paths_count_from_the_file_or_from_the_current_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = "package: ../pkg\nseed_model: seed.npz\nrounds: 1\nclients: {count: 2, data: {dataset: d/mnist.pt}}\n"
    config = load(folder, text).config
    assert config.package == str(tmp_path / "pkg")
    assert config.seed_model == str(folder / "seed.npz")
    assert config.clients.data is not None
    assert config.clients.data.dataset == str(folder / "d/mnist.pt")
    config = load(folder, text, "package=pkg", "seed_model=null", "clients.data.dataset=/x/y.npz").config
    assert config.package == str(elsewhere / "pkg")
    assert config.seed_model is None
    assert config.clients.data == DataConfig(dataset="/x/y.npz")


def test_a_relative_file_path_gives_absolute_paths_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "run.yaml").write_text(MINIMAL)
    monkeypatch.chdir(folder)
    loaded = load_config(Path("run.yaml"))
    assert loaded.config.package == str(folder / "pkg")
    assert loaded.origins["rounds"] == "run.yaml:2"


def test_named_datasets_are_no_paths(folder: Path) -> None:
    config = load(folder, MINIMAL, "clients.data={dataset: sklearn/digits, partition: {name: dirichlet}}").config
    assert config.clients.data == DataConfig(dataset="sklearn/digits", partition={"name": "dirichlet"})


def test_only_what_was_written_is_a_pattern(folder: Path) -> None:
    text = "package: p\nrounds: 1\nclients: {folders: data/*}\n"
    assert load(folder, text).config.clients.folders == str(folder / "data/*").replace("[1]", "[[]1]")
    assert load(folder, text, "clients.folders=/x/*/").config.clients.folders == "/x/*/"
    assert load(folder, text, f"clients.folders={folder}/x").config.clients.folders == f"{folder}/x"


def test_a_stored_configuration_comes_back_equal(folder: Path) -> None:
    text = MINIMAL + "arguments: {train: {lr: 0.1, l: [1, [a, null]]}}\nrun_config: {deep: {er: [true]}}\n"
    config = load(folder, text, "executor.workers=2", "round.timeout_s=30").config
    assert config_from_json(json.loads(json.dumps(dump_config(config)))) == config


def test_a_damaged_stored_configuration_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match="stored configuration: 'rounds' must be a whole number from 1, at most 1000000000 or null, found text",
    ):
        config_from_json({"package": "/p", "rounds": "x", "clients": {"count": 1}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            MINIMAL + "\nvalidation:\n  every: 1\n  fracton: 0.5\n",
            "run.yaml, line 7: unknown key 'fracton' in 'validation'; did you mean 'fraction'?",
        ),
        (MINIMAL + "round_: 3\n", "run.yaml, line 4: unknown key 'round_'; did you mean 'round'?"),
        (MINIMAL + "rounds: 4\n", "run.yaml, line 4: duplicate key 'rounds' (first on line 2)"),
        ("rounds: 3\nclients: {count: 1}\n", "run.yaml: missing key 'package'"),
        (
            "package: p\nrounds: 1\nclients:\n  count: 1\n  data: {}\n",
            "run.yaml, line 5: missing key 'dataset' in 'clients.data'",
        ),
        ("", "run.yaml: expected 'key: value' lines, found nothing"),
        ("- a\n- b\n", "run.yaml: expected 'key: value' lines, found something else"),
        ("package: [\n", "run.yaml, line 2: not valid YAML: expected the node content, but found '<stream end>'"),
        (
            "package: p\n\trounds: 3\n",
            "run.yaml, line 2: not valid YAML: found character '\\t' that cannot start any token",
        ),
        ("package: p\n---\nrounds: 3\n", "run.yaml, line 2: not valid YAML: but found another document"),
        (
            MINIMAL + "run_config: !!python/object:os.system {}\n",
            "run.yaml, line 4: the tag !!python/object:os.system is not supported",
        ),
        (MINIMAL + "run_config: &a {x: *a}\n", "run.yaml, line 4: 'run_config.x' contains itself through an alias (*)"),
        (MINIMAL + "? [a]\n: 3\n", "run.yaml, line 4: a key must be plain text"),
        (MINIMAL + "seed: !!int x\n", "run.yaml, line 4: 'x' is not of type !!int"),
        (MINIMAL + "sampler: 3\n", "run.yaml, line 4: 'sampler' must be a section of 'key: value' lines, found 3"),
        (
            MINIMAL + "sampler:\n",
            "run.yaml, line 4: 'sampler' must be a section of 'key: value' lines, found null",
        ),
        (
            "package: p\nrounds: three\nclients: {count: 1}\n",
            "run.yaml, line 2: 'rounds' must be a whole number from 1, at most 1000000000 or null, found text 'three'",
        ),
        (
            MINIMAL + "keep: {updates: yes}\n",
            "run.yaml, line 4: 'keep.updates' must be true or false, found text 'yes'",
        ),
        (
            MINIMAL + "keep:\n  models: last\n",
            "run.yaml, line 5: 'keep.models' must be 'all', 'last N' or 'every N', N a whole number from 1,"
            " found text 'last'",
        ),
        (
            MINIMAL + "keep: {task_folders: every 0}\n",
            "run.yaml, line 4: 'keep.task_folders' must be 'all', 'last N' or 'every N', N a whole number from 1,"
            " found text 'every 0'",
        ),
        (
            MINIMAL + "executor: {workers: many}\n",
            "run.yaml, line 4: 'executor.workers' must be a whole number from 1, at most 1024 or 'auto', found text "
            "'many'",
        ),
        (
            MINIMAL + "executor:\n  name: forkserve\n",
            "run.yaml, line 5: 'executor.name' must be 'forkserver' or 'process' or 'resident', found text 'forkserve'"
            "; did you mean 'forkserver'?",
        ),
        (MINIMAL + "environment: {A: }\n", "run.yaml, line 4: 'environment.A' must be text, found null"),
        (MINIMAL + "environment: {A: [1]}\n", "run.yaml, line 4: 'environment.A' must be text, found a list"),
        (MINIMAL + "name: ${nope}\n", "run.yaml, line 4: 'name': Interpolation key 'nope' not found"),
        (MINIMAL + "name: ???\n", "run.yaml, line 4: 'name': Missing mandatory value: name"),
        (
            MINIMAL + "arguments: {train: {2lr: 1}}\n",
            "run.yaml, line 4: '2lr' in 'arguments.train' cannot be the name of an argument",
        ),
        (
            MINIMAL + "arguments: {train: {lr: {2a: 1}}}\n",
            "run.yaml, line 4: '2a' in 'arguments.train.lr' cannot be the name of an argument",
        ),
        (
            MINIMAL + "run_config: {a: [1, .nan]}\n",
            "run.yaml, line 4: 'run_config.a.1' must be a finite number (JSON has no other; quote it to make it text), "
            "found nan",
        ),
        (
            MINIMAL + "buffers: bn.*\n",
            "run.yaml, line 4: 'buffers' must be a list of text or null, found text 'bn.*'",
        ),
        (MINIMAL + "buffers:\n  - a\n  - 3\n", "run.yaml, line 6: 'buffers.1' must be text, found 3"),
        (
            MINIMAL + "buffers: ['']\n",
            "run.yaml, line 4: 'buffers' must be a list of patterns, none of them empty, found a list",
        ),
        (MINIMAL + "environment: {A-B: 1}\n", "run.yaml, line 4: 'A-B' in 'environment' cannot be set"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(folder: Path, text: str, message: str) -> None:
    assert refusal(folder, text) == message


GPUS = "'executor.needs.gpus' must be 0, a fraction of one GPU from 0.001, or a whole number up to 1024, found"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("validation.fracton=1", "unknown key 'fracton' in 'validation'; did you mean 'fraction'?"),
        ("rouns=1", "unknown key 'rouns'; did you mean 'rounds'?"),
        ("rounds=x", "'rounds' must be a whole number from 1, at most 1000000000 or null, found text 'x'"),
        ("rounds=2.0", "'rounds' must be a whole number from 1, at most 1000000000 or null, found 2.0"),
        ("rounds=true", "'rounds' must be a whole number from 1, at most 1000000000 or null, found true"),
        ("rounds", "'rounds' is not key=value"),
        ("a..b=1", "'a..b=1' is not key=value"),
        ("arguments.train.l.0=5", "'arguments.train.l.0' is of another kind than the value that it replaces"),
        ("rounds=0", "'rounds' must be a whole number from 1, at most 1000000000 or null, found 0"),
        ("seed=-1", "'seed' must be a whole number from 0, found -1"),
        ("validation.fraction=0", "'validation.fraction' must be a number above 0, at most 1, found 0"),
        ("validation.fraction=.nan", "'validation.fraction' must be a number above 0, at most 1, found nan"),
        ("validation.count=0", "'validation.count' must be a whole number from 1 or null, found 0"),
        ("validation={count: 2, fraction: 0.5}", "'validation.count' excludes 'validation.fraction'"),
        ("clock.spread=-0.1", "'clock.spread' must be a number from 0, at most 10, found -0.1"),
        (
            "clock.seconds={slow-*: 0}",
            "'clock.seconds.slow-*' must be a number above 0, at most 1e+09, found 0",
        ),
        ("round.required=0", "'round.required' must be a whole number from 1, found 0"),
        ("round.timeout_s=0", "'round.timeout_s' must be a number above 0, at most 1e+08 or null, found 0"),
        ("executor.timeout_s=.inf", "'executor.timeout_s' must be a number above 0, at most 1e+08 or null, found inf"),
        ("executor.workers=0", "'executor.workers' must be a whole number from 1, at most 1024 or 'auto', found 0"),
        ("executor.threads=0", "'executor.threads' must be a whole number from 1, at most 1024, found 0"),
        ("executor.needs.gpus=-1", f"{GPUS} -1.0"),
        ("executor.needs.gpus=1.5", f"{GPUS} 1.5"),
        ("executor.needs.gpus=0.0001", f"{GPUS} 0.0001"),
        ("executor.needs.gpus=.inf", f"{GPUS} inf"),
        ("executor.needs.gpus=.nan", f"{GPUS} nan"),
        (
            "executor.needs.memory_bytes=0",
            "'executor.needs.memory_bytes' must be a whole number from 1 or null, found 0",
        ),
        ("executor.needs.gpu=1", "unknown key 'gpu' in 'executor.needs'; did you mean 'gpus'?"),
        (
            "executor.needs.gpu_memory_bytes=5",
            "'executor.needs.gpu_memory_bytes' is set, but executor.needs.gpus is 0",
        ),
        ("environment.CUDA_VISIBLE_DEVICES=0", "'CUDA_VISIBLE_DEVICES' in 'environment' is set by fedpkg"),
        ("environment.CUDA_DEVICE_ORDER=x", "'CUDA_DEVICE_ORDER' in 'environment' is set by fedpkg"),
        ("validation.every=-1", "'validation.every' must be a whole number from 0, found -1"),
        ("validation.fraction=1.5", "'validation.fraction' must be a number above 0, at most 1, found 1.5"),
        ("clients.count=0", "'clients.count' must be a whole number from 1, at most 1000000 or null, found 0"),
        (
            "clients.data={dataset: a.npz, within: {train: 0.2}}",
            "'train' in 'clients.data.within' cannot be the name of a part",
        ),
        (
            "clients.data={dataset: a.npz, within: {test: 0.5, validation: 0.5}}",
            "'clients.data.within' leaves nothing to train on: {test: 0.5, validation: 0.5}",
        ),
        ("clients={folders: x, data: {dataset: a.npz}}", "'clients.folders' excludes 'clients.data'"),
        ("clients.links={a/../b: .}", "'a/../b' in 'clients.links' cannot be the name of a link"),
        ("clients.links={data: ../x}", "'clients.links.data' is '../x', which is not in the client's data"),
        ("clients.links={data: .}", "'clients.links' needs data to link to"),
        ("clients.count=null", "'clients' sets neither 'count' nor 'folders'"),
        (
            "name=a b",
            "'name' must be letters, digits, '.', '_' and '-', not beginning with '.' or '-', found text 'a b'",
        ),
        ("name=..", "'name' must be letters, digits, '.', '_' and '-', not beginning with '.' or '-', found text '..'"),
        ("package=''", "'package' must be a path, found text ''"),
    ],
)
def test_a_wrong_override_is_refused(folder: Path, override: str, message: str) -> None:
    text = MINIMAL + "arguments: {train: {l: [1, 2]}}\n"
    found = refusal(folder, text, override)
    assert found.split(": ", 1)[1] == message
    assert found.startswith(("on the command line: ", "run.yaml, line 3: 'clients"))


def test_paths_in_place_of_an_unquoted_pattern_are_an_error_with_the_remedy(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not key=value\s+try +put a pattern of paths in quotes"):
        load(folder, MINIMAL, str(folder))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("arguments.train.2lr=1", "'2lr' in 'arguments.train' cannot be the name of an argument"),
        ("rounds.x=3", "'rounds' must be a whole number from 1, at most 1000000000 or null, found a section with x"),
        ("clients.data.partition.alpha=1", "missing key 'dataset' in 'clients.data'"),
        ("environment.A.B=1", "'environment.A' must be text, found a section with B"),
    ],
)
def test_a_section_that_an_override_made_is_placed_on_the_command_line(
    folder: Path, override: str, message: str
) -> None:
    text = MINIMAL + "environment:\n  A: 1\narguments:\n  train: {l: 1}\n"
    assert refusal(folder, text, override) == f"on the command line: {message}"


def test_a_placeholder_without_quotes_gets_a_hint(folder: Path) -> None:
    for key in ("arguments.train.x", "environment.A"):
        with pytest.raises(ConfigError) as caught:
            load(folder, MINIMAL, f"{key}={{client_id}}")
        assert caught.value.message.startswith("on the command line: ")
        assert caught.value.hint == f"quote it: \"{key}='{{client_id}}'\""
        assert load(folder, MINIMAL, f"{key}='{{client_id}}'")
    with pytest.raises(ConfigError) as caught:
        load(folder, MINIMAL + "environment:\n  A: {client_id}\n")
    assert "run.yaml, line 5: 'environment.A' must be text" in caught.value.message
    assert caught.value.hint == "quote it: '{client_id}'"


def test_a_malformed_override_value_is_refused(folder: Path) -> None:
    assert refusal(folder, MINIMAL, "rounds=[1").startswith("on the command line, 'rounds', line 1: not valid YAML")


def test_the_hint_lists_the_known_keys_and_the_error_carries_the_key(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, MINIMAL + "round: {zzz: 1}\n")
    assert caught.value.hint == "known keys here: required, timeout_s, weighting"
    assert caught.value.fields["key"] == "round.zzz"


def test_a_file_that_cannot_be_read_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml: cannot be read: No such file"):
        load_config(folder / "run.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(folder)
    (folder / "run.yaml").write_bytes(b"package: \xff\n")
    with pytest.raises(ConfigError, match="cannot be read: not UTF-8 text"):
        load_config(folder / "run.yaml")


def test_patterns_of_buffers_are_a_list(folder: Path) -> None:
    assert load(folder, MINIMAL).config.buffers is None
    assert load(folder, MINIMAL + "buffers: []\n").config.buffers == []
    loaded = load(folder, MINIMAL + "buffers: ['*.ema', count]\n")
    assert loaded.config.buffers == ["*.ema", "count"]
    assert loaded.origins["buffers"].endswith("run.yaml:4")
    assert load(folder, MINIMAL + "buffers: [a]\n", "buffers=['*.b', c]").config.buffers == ["*.b", "c"]
    assert config_from_json(dump_config(loaded.config)) == loaded.config


def test_control_characters_in_a_file_are_refused(folder: Path) -> None:
    assert refusal(folder, "package: a\x00b\n").startswith("run.yaml, line 1: not valid YAML")


def test_importing_the_schema_and_the_samplers_loads_nothing_heavy() -> None:
    code = (
        "import sys, fedpkg.config, fedpkg.samplers; print({'numpy', 'torch', 'omegaconf', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


BEYOND = ("1e300", "1" + "0" * 30, "0x" + "f" * 5000, "-1", ".nan", ".inf", "-.inf")


def numeric_keys(schema: type, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The dotted keys of all numbers in a section and the sections in it."""
    for field in msgspec.structs.fields(schema):
        kinds = get_args(field.type) or (field.type,)
        for kind in kinds:
            if kind in (int, float):
                yield ".".join((*path, field.name))
            elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                yield from numeric_keys(kind, (*path, field.name))


@pytest.mark.parametrize("key", [*numeric_keys(RunConfig), "clock.seconds.a"])
def test_number_beyond_what_the_machine_takes_is_refused_with_its_key(folder: Path, key: str) -> None:
    sections = key.split(".")[:-1]
    text = MINIMAL.replace("{count: 4}", "{count: 4, data: {dataset: sklearn/iris}}")
    text = text + "clock: {}\n" if sections[:1] == ["clock"] else text
    load(folder, text)
    for value in BEYOND:
        message = refusal(folder, text, f"{key}={value}")
        assert key.removesuffix(".a") in message and len(message) < 400, message


def test_largest_numbers_that_are_taken_are_those_that_the_message_says(folder: Path) -> None:
    largest = [f"limits.{name}_bytes={2**63 - 1}" for name in ("memory", "file", "folder", "log", "reply", "package")]
    load(folder, MINIMAL, *largest, "round.timeout_s=1e8", "executor.workers=1024", "rounds=1000000000")


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100, "\n" + "".join(" " * n + "- \n" for n in range(1, 100))])
def test_deep_nesting_is_refused_with_its_line(folder: Path, text: str) -> None:
    assert re.search(r"line \d+: nested too deeply \(more than 30 levels\)", refusal(folder, "run_config: " + text))
    assert "nested too deeply" in refusal(folder, MINIMAL, f"run_config.a={'[' * 5000}")


def test_no_alias_and_no_list_of_children_nests_without_limit(folder: Path) -> None:
    lists = ["a0: &a0 " + "[" * 28 + "]" * 28, *(f"a{n}: &a{n} {'[' * 28}*a{n - 1}{']' * 28}" for n in range(1, 20))]
    assert "nested too deeply (more than 30 levels)" in refusal(folder, "\n".join(lists))
    merged = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: *a{n - 1}}}" for n in range(1, 40))]
    assert "nested too deeply (more than 30 levels)" in refusal(folder, "\n".join(merged))
    trees = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{children: [*a{n - 1}]}}" for n in range(1, 260))]
    assert "nested too deeply (more than 500 levels)" in refusal(folder, "\n".join(trees))


def test_a_tree_that_is_too_deep_is_told_how_deep_it_may_be(folder: Path) -> None:
    with pytest.raises(ConfigError, match="nested too deeply \\(more than 500 levels\\)") as caught:
        load(folder, "topology: " + "{children: [" * 260)
    assert caught.value.hint == "a tree may have about 240 levels of combiners"


def test_aliases_cannot_make_much_of_little(folder: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "more than 100000 values, counting what aliases (*) repeat" in refusal(folder, "\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load(folder, "\n".join(lines))
    assert "can be a CSV file" in (caught.value.hint or "")
    merged = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]
    assert "more than 100000 values" in refusal(folder, "\n".join(merged))


def test_number_of_many_digits_may_be_text(folder: Path) -> None:
    config = load(
        folder, MINIMAL + "environment: {A: " + "9" * 5000 + "}\nrun_config: {b: '" + "9" * 30 + "'}\n"
    ).config
    assert config.environment["A"] == "9" * 5000 and config.run_config["b"] == "9" * 30
    assert "does not fit in 64 bits" in refusal(folder, MINIMAL, "run_config.a=" + "9" * 5000)


FREE = """\
package: p
rounds: 2
clients: {count: 2, groups: {a: [client-0]}}
clock: {seconds: {slow: 3}}
strategy: {name: krum, attackers: 1}
sampler: {name: uniform, count: 1}
arguments: {train: {lr: 0.1, epochs: 2}}
run_config: {deep: {x: 1, y: 2}}
environment: {A: "1"}
executor: {workers: 2, threads: 3}
"""


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("strategy={name: fedavg}", "strategy", {"name": "fedavg"}),
        ("strategy={aggregator: {name: median}}", "strategy", {"aggregator": {"name": "median"}}),
        ("strategy.attackers=2", "strategy", {"name": "krum", "attackers": 2}),
        ("sampler={name: weighted}", "sampler", {"name": "weighted"}),
        ("sampler.fraction_train=0.5", "sampler", {"name": "uniform", "count": 1, "fraction_train": 0.5}),
        ("arguments={validate: {k: 1}}", "arguments", {"validate": {"k": 1}}),
        ("arguments.train={lr: 1}", "arguments", {"train": {"lr": 1}}),
        ("run_config.deep={z: 3}", "run_config", {"deep": {"z": 3}}),
        ("run_config={}", "run_config", {}),
        ("environment={B: 2}", "environment", {"B": "2"}),
        ("clients.groups={b: [client-1]}", "clients", {"groups": {"b": ["client-1"]}}),
        ("clock.seconds={fast: 1}", "clock", {"seconds": {"fast": 1.0}}),
        ("executor={workers: 4}", "executor", {"workers": 4, "threads": 3}),
        ("clients={count: 3}", "clients", {"count": 3, "groups": {"a": ["client-0"]}}),
    ],
)
def test_mapping_replaces_a_section_of_free_keys(folder: Path, override: str, key: str, value: dict[str, Any]) -> None:
    loaded = load(folder, FREE, override)
    found = dump_config(loaded.config)[key]
    assert isinstance(found, dict)
    fixed = key in ("executor", "clients", "clock")
    assert {name: found[name] for name in value} == value if fixed else found == value
    assert set(loaded.origins) >= {f"{key}.{name}" for name in value if not isinstance(value[name], dict)}


def test_replaced_section_comes_from_the_command_line(folder: Path) -> None:
    origins = load(folder, FREE, "strategy={name: fedavg}", "strategy.beta=1").origins
    assert {key: origin for key, origin in origins.items() if key.startswith("strategy")} == {
        "strategy.name": "command line",
        "strategy.beta": "command line",
    }
