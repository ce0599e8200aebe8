"""Traces of who is there: read strictly, looked up by round or virtual time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fedpkg.errors import DataError
from fedpkg.samplers.availability import Availability, read_trace

CLIENTS = ["a", "b", "c"]


def written(folder: Path, text: str, name: str = "Spur ü.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def there(path: Path, *moments: float) -> list[str]:
    availability, rng = Availability(read_trace(path)), np.random.default_rng(0)
    return ["".join(CLIENTS[i] for i in availability.places(CLIENTS, moment, rng)) for moment in moments]


def test_rounds_both_ends_included_and_who_has_no_line_is_always_there(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeffto_round, client ,from_round\n3,a,2\n\n,a,5\n1,b,1\n")
    assert there(path, 1, 2, 3, 4, 5, 99) == ["bc", "ac", "ac", "c", "ac", "ac"]


def test_virtual_seconds_and_json(tmp_path: Path) -> None:
    rows = [{"client": "a", "from_s": 0, "to_s": 1.5}, {"client": "b", "from_s": 2.5}, {"client": "c", "from_s": 0.5}]
    path = written(tmp_path, json.dumps(rows), "Spur.json")
    assert there(path, 0, 1, 1.5, 2, 3) == ["a", "ac", "ac", "c", "bc"]
    trace = read_trace(path)
    assert Availability(trace).goes_by_time
    assert trace.next_time(["b"], 0.25, any) == 2.5, "the first moment at which one of them is there"
    assert trace.next_time(["a", "b"], 1.0, any) == 1.0 and trace.next_time(["a"], 2.0, any) is None
    assert trace.next_time(["nobody's line"], 7.0, any) == 7.0
    assert trace.next_time(["b", "c"], 0.0, lambda there: len(there) > 1) == 2.5, "or two of them"


def test_client_that_there_is_not_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "client,from_round,to_round\nclient-1,1,\nclient_2,1,2\n")
    with pytest.raises(DataError, match=r"line 3: there is no client 'client_2'; did you mean 'client-2'\?"):
        Availability(read_trace(path)).check(["client-1", "client-2"])


HEAD = "client,from_round,to_round\n"
BAD = {
    "nothing": ("", "the trace is empty"),
    "only names": (HEAD, "the trace is empty"),
    "no columns": ("a,1,2\nb,1,2\n", "line 2: columns are missing, found a, 1, 2"),
    "other columns": ("client,start,end\na,1,2\n", "line 2: columns are missing"),
    "one too many": ("client,from_round,to_round,who\na,1,2,x\n", "line 2: unknown column 'who'"),
    "misspelt": ("client,from_round,to_rond\na,1,2\n", "unknown column 'to_rond'; did you mean 'to_round'?"),
    "two units": ("client,from_round,to_s\na,1,2\n", "unknown column 'to_s'"),
    "twice": ("client,client,from_round\na,a,1\n", "line 1: a column appears twice"),
    "too few values": (HEAD + "a,1\n", "line 2: 2 values for 3 columns"),
    "too many values": (HEAD + "a,1,2,3\n", "line 2: 4 values for 3 columns"),
    "no client": (HEAD + "a,1,2\n,1,2\n", "line 3: 'client' must be the id of a client, found None"),
    "round 0": (HEAD + "a,0,2\n", "line 2: 'from_round' must be a whole number from 1, found '0'"),
    "half a round": (HEAD + "a,1.5,2\n", "line 2: 'from_round' must be a whole number from 1, found '1.5'"),
    "no start": (HEAD + "a,,2\n", "line 2: 'from_round' must be a whole number from 1, found None"),
    "words": (HEAD + "a,1,two\n", "line 2: 'to_round' must be a whole number from 1, found 'two'"),
    "backwards": (HEAD + "a,3,2\n", "line 2: 'to_round' is 2, before 'from_round', 3"),
    "infinite": ("client,from_s\na,inf\n", "line 2: 'from_s' must be a number from 0, found 'inf'"),
    "negative": ("client,from_s\na,-1\n", "line 2: 'from_s' must be a number from 0, found '-1'"),
    "open quote": (HEAD + 'a,"1,2\n', "line 2: not valid CSV"),
}
BAD_JSON = {
    "no JSON": ("[1,\n oops]", "line 2: not valid JSON"),
    "too deep": ("[" * 100_000, "not valid JSON"),
    "an object": ('{"client": "a"}', "a trace must be a list of objects, found a dict"),
    "numbers": ("[1]", "entry 1: not an object"),
    "a flag": (
        '[{"client": "a", "from_round": true}]',
        "entry 1: 'from_round' must be a whole number from 1, found True",
    ),
    "a huge number": ('[{"client": "a", "from_round": 1' + "0" * 400 + "}]", "entry 1: 'from_round' must be"),
    "a number for a client": ('[{"client": 1, "from_round": 1}]', "entry 1: 'client' must be the id of a client"),
}


@pytest.mark.parametrize("case", [*BAD, *BAD_JSON])
def test_bad_traces_are_refused_with_the_place(case: str, tmp_path: Path) -> None:
    text, words = {**BAD, **BAD_JSON}[case]
    path = written(tmp_path, text, "Spur ü.csv" if case in BAD else "Spur ü.json")
    with pytest.raises(DataError) as caught:
        read_trace(path)
    assert str(path) in caught.value.message and words in caught.value.message


def test_trace_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"client,from_round\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="it is not UTF-8 text"):
        read_trace(tmp_path / "x.csv")
