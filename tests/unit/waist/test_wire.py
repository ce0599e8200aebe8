"""The data of the waist as JSON, both ways. The bytes are checked in: another version, or machine, reads these."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fedpkg.errors import WaistError
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Answer, Failure, ReplyFile, Usage
from fedpkg.waist.order import Input, Isolation, Limits, Order, ReplySpec, TensorSpec, digest_of
from fedpkg.waist.wire import from_json, to_json
from fedpkg.yaml_places import allow_deep_calls

ORDER = Order(
    task_id="ü-1/3/client-0/train-2",
    session_id="ü-1",
    round_number=3,
    client_id="Zürich 東京",
    entry_point="train",
    package="9f3c",
    reply_spec="d1",
    attempt=2,
    request_id="r",
    partition_id=4,
    num_partitions=9,
    attributes={"device": "phone", "rate": 0.5, "gpu": True},
    input=Input(reference="sessions/ü-1/m.npz", size_bytes=12, digest="ab", sets=("x", "control"), model="x"),
    arguments={"lr": 0.01, "layers": [64, None]},
    parameters={"proximal_mu": 0.1},
    run_config={"deep": {"a": [True]}},
    environment={"A": "b\udcff"},
    seed=2**80,
    data="Daten/0",
    links={"data": "."},
    state="2-train",
    starts_up=True,
    started="0-startup",
    threads=2,
    timeout_s=1.5,
    limits=Limits(memory_bytes=1 << 40, processes=64),
    isolation=Isolation(network=True, read=("/a b", "/c")),
    log_bytes=5,
)
ANSWER = Answer(
    task_id="t",
    status="failed",
    failure=Failure("exit_code", "it\x1b ended"),
    reply=ReplyFile(name="out.npz", size_bytes=1 << 70, checksum="00c0ffee"),
    num_examples=3.5,
    metadata={"num_examples": 3.5, "n": 10**40},
    metrics={"nan": math.nan, "all": [math.inf, -math.inf, 1e300]},
    converted="tensor 'w' is float64",
    state="3-train",
    state_checksum="1",
    exit_code=3,
    signal=9,
    command="python x.py",
    log_tail="größer\n",
    folder="sessions/s",
    started_at=1.25,
    wall_s=0.5,
    phases={"run": 0.25},
    usage=Usage(cpu_s=0.125, peak_memory_bytes=7),
)
SPEC = ReplySpec(
    kind=ReplyKind.SETS,
    tensors=(TensorSpec("w", "float32", (2, 3)), TensorSpec("n", "int64", (), True)),
    reply="delta",
    sets={"x": None, "c": (TensorSpec("w", "float64", (2,)),)},
    transforms=({"name": "top_k", "share": 0.1},),
    weighted=False,
    use="stepped",
    suffix=".safetensors",
    max_bytes=100,
)
LIMITS = (
    '"limits":{"cpu_s":null,"file_bytes":null,"folder_bytes":null,"folder_files":null,"memory_bytes":1099511627776,'
    '"open_files":null,"processes":64}'
)
GOLDEN: list[tuple[Any, str]] = [
    (
        ORDER,
        (
            '{"argument_style":"","arguments":{"layers":[64,null],"lr":0.01},"attempt":2,'
            '"attributes":{"device":"phone","gpu":true,"rate":0.5},"client_id":"Zürich 東京","data":"Daten/0",'
            '"entry_point":"train","environment":{"A":"b\udcff"},"input":{"digest":"ab","model":"x","records":false,'
            '"reference":"sessions/ü-1/m.npz","sets":["x","control"],"size_bytes":12},"isolation":{"network":true,'
            f'"read":["/a b","/c"]}},{LIMITS},"links":{{"data":"."}},"log_bytes":5,"num_partitions":9,'
            '"package":"9f3c","parameters":'
            '{"proximal_mu":0.1},"partition_id":4,"reply_spec":"d1","request_id":"r","round_number":3,"run_config":'
            '{"deep":{"a":[true]}},"seed":1208925819614629174706176,"session_id":"ü-1","started":"0-startup",'
            '"starts_up":true,"state":"2-train",'
            '"task_id":"ü-1/3/client-0/train-2","threads":2,"timeout_s":1.5}'
        ),
    ),
    (
        ANSWER,
        (
            '{"command":"python x.py","converted":"tensor \'w\' is float64","exit_code":3,"failure":{"kind":'
            '"exit_code","message":"it\\\\x1b ended"},"folder":"sessions/s","log_tail":"größer\\n","metadata":{"n":1'
            + "0"
            * 40
            + ',"num_examples":3.5},"metrics":{"all":[Infinity,-Infinity,1e+300],"nan":NaN},"num_examples":3.5,'
            '"phases":{"run":0.25},"reply":{"checksum":"00c0ffee","name":"out.npz","size_bytes":1180591620717411303424},"signal":9,'
            '"started_at":1.25,"state":"3-train","state_checksum":"1","status":"failed","task_id":"t","usage":{"cpu_s":'
            '0.125,"peak_memory_bytes":7},"wall_s":0.5}'
        ),
    ),
    (
        SPEC,
        (
            '{"kind":"sets","max_bytes":100,"reply":"delta","sets":{"c":[["w","float64",[2],false]],"x":null},"suffix":'
            '".safetensors","tensors":[["w","float32",[2,3],false],["n","int64",[],true]],"transforms":[{"name":"top_k",'
            '"share":0.1}],"use":"stepped","weighted":false}'
        ),
    ),
    (
        ORDER.input,
        (
            '{"digest":"ab","model":"x","records":false,"reference":"sessions/ü-1/m.npz","sets":["x","control"],"size_bytes":12}'
        ),
    ),
    (ORDER.limits, LIMITS.removeprefix('"limits":')),
    (ORDER.isolation, '{"network":true,"read":["/a b","/c"]}'),
    (ANSWER.failure, '{"kind":"exit_code","message":"it\\\\x1b ended"}'),
    (ANSWER.usage, '{"cpu_s":0.125,"peak_memory_bytes":7}'),
]


@pytest.mark.parametrize(("value", "text"), GOLDEN, ids=lambda one: "" if isinstance(one, str) else type(one).__name__)
def test_value_and_bytes_are_as_ever(value: Any, text: str) -> None:
    data = text.encode(errors="surrogatepass")
    assert to_json(value) == data
    read = from_json(data, type(value))
    assert to_json(read) == data
    assert read == value or isinstance(value, Answer), "NaN equals nothing"


def test_numbers_that_are_not_finite_are_kept() -> None:
    metrics = from_json(to_json(ANSWER), Answer).metrics
    assert math.isnan(metrics["nan"]) and metrics["all"] == [math.inf, -math.inf, 1e300]


def test_what_an_order_leaves_out_has_its_default() -> None:
    least = Order(
        task_id="t", session_id="s", round_number=1, client_id="c", entry_point="e", package="p", reply_spec="r"
    )
    given = {name: getattr(least, name) for name in ("task_id", "session_id", "client_id", "entry_point", "package")}
    text = msgspec.json.encode({**given, "round_number": 1, "reply_spec": "r"})
    assert from_json(text, Order) == least


BAD = {
    "a field more": ('"attemt":1', r"unknown field `attemt`"),
    "a field more, inside": ('"input":{"reference":"a","size_bytes":1,"size":1}', r"`size` - at `\$\.input`"),
    "text for a number": ('"attempt":"1"', r"Expected `int`, got `str` - at `\$\.attempt`"),
    "part of a number": ('"attempt":1.5', r"Expected `int`, got `float` - at `\$\.attempt`"),
    "a list for a table": ('"limits":[]', r"Expected `object`, got `array` - at `\$\.limits`"),
    "a number in text": ('"isolation":{"read":["/a",2]}', r"at `\$\.isolation\.read\[1\]`"),
    "nothing": ('"environment":{"A":null}', r"got `null` - at `\$\.environment\[\.\.\.\]`"),
    "no JSON": ('"attempt":', "Expecting value: line 1"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_order_is_refused_and_the_place_named(what: str) -> None:
    words, reason = BAD[what]
    rest = ",".join(f'"{name}":"x"' for name in ("task_id", "session_id", "client_id", "entry_point", "package"))
    with pytest.raises(WaistError, match=f"not a valid Order: .*{reason}"):
        from_json(f'{{{rest},"round_number":1,"reply_spec":"r",{words}}}', Order)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"\xff\xfe", b"{}", b'{"task_id":"t","status":"perhaps"}', b"9" * 5000],
    ids=lambda data: repr(data[:9]),
)
def test_bytes_that_are_no_answer_are_refused(data: bytes) -> None:
    with pytest.raises(WaistError, match="not a valid Answer: "):
        from_json(data, Answer)


@pytest.mark.parametrize("opened", [b"[", b'{"a":'])
@pytest.mark.parametrize("levels", [600, 3_000, 100_000])
def test_deep_nesting_is_refused_like_anything_else(opened: bytes, levels: int) -> None:
    """Also where deep trees of combiners have raised Python's limit of nested calls."""
    allow_deep_calls()
    start = b'{"task_id":"t","status":"ok","metrics":' + levels * opened
    closed = start + b"1" + levels * (b"]" if opened == b"[" else b"}") + b"}"
    for data in (start, closed):
        with pytest.raises(WaistError, match="not a valid Answer: "):
            from_json(data, Answer)
    deep: Any = 1
    for _ in range(levels):
        deep = [deep] if opened == b"[" else {"a": deep}
    with pytest.raises(WaistError, match="this Answer cannot be written as JSON: "):
        to_json(Answer(task_id="t", status="ok", metrics=deep))
    while deep != 1:  # or taking it down would recurse as deep, in versions of Python before 3.12
        (deep,) = deep if opened == b"[" else deep.values()


def test_much_json_is_read() -> None:
    answer = Answer(task_id="t", status="ok", metrics={"losses": list(range(300_000)), "text": "ü" * 3_000_000})
    assert from_json(to_json(answer), Answer) == answer


def test_value_that_is_no_json_is_refused() -> None:
    with pytest.raises(WaistError, match="this Order cannot be written as JSON"):
        to_json(msgspec.structs.replace(ORDER, parameters={"a": object()}))


def test_digest_of_a_specification_is_the_same_in_every_process() -> None:
    code = "from test_wire import SPEC, digest_of; print(digest_of(SPEC))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert told == digest_of(SPEC) == "209c1edec5b6332588c439108bcbd55e3572c8bb5aefbc893a732a10e9e252c3"
    assert digest_of(msgspec.structs.replace(SPEC, weighted=True)) != digest_of(SPEC)
