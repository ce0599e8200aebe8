"""A node's policy: how it is read, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedpkg.analytics.policy import Algorithm, NotAllowed, Policy, policy_of
from fedpkg.errors import ConfigError

DIGEST = "a" * 64
ALL_RULES = {
    "minimum_rows": {"default": 10},
    "allowed_columns": ["age", "stage", "lab_*"],
    "forbidden_columns": ["Name"],
    "allowed_algorithms": ["harbor/average", f"sha256:{DIGEST}"],
    "allowed_organizations": ["North", 2],
    "allowed_queries": ["SELECT age FROM patients"],
    "allowed_functions": {
        "partial_mean": None,
        "partial_table": {
            "arguments": {"columns": ["age", "stage"], "bins": {"minimum": 1, "maximum": 50}, "free": None},
            "counts": ["table.*"],
            "maximum_calls": 5,
            "minimum_organizations": 4,
        },
    },
    "minimum_organizations": 3,
    "minimum_count": 5,
    "maximum_calls": 20,
    "wall_time_s": 60,
    "memory_bytes": 1 << 30,
    "isolated": False,
    "require_algorithm_pull": True,
}


def test_a_policy_with_every_rule_survives_json() -> None:
    assert policy_of(json.loads(json.dumps(ALL_RULES))) == policy_of(ALL_RULES)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"minimum_row": 10}, "there is no such rule; did you mean 'minimum_rows'"),
        ({"minimum_rows": "ten"}, "policies.minimum_rows: expected a whole number from 1, found 'ten'"),
        ({"minimum_rows": True}, "expected a whole number"),
        ({"minimum_rows": {"default": 0}}, r"policies.minimum_rows.default: expected a whole number from 1, found 0"),
        ({"allowed_columns": "age"}, "expected a list, found 'age'"),
        ({"allowed_algorithms": ["[a-z"]}, "is not a regular expression"),
        ({"allowed_algorithms": ["sha256:12"]}, "a digest has 64 hexadecimal digits"),
        ({"allowed_users": [1]}, "it cannot be kept: there are no users here"),
        ({"allowed_functions": {"f": {"argument": []}}}, r"allowed_functions.f.argument: there is no such rule"),
        ({"allowed_functions": {"f": {"arguments": {"n": {"minimum": "1"}}}}}, "expected a number, found '1'"),
        ({"wall_time_s": 0}, "above 0"),
        ({"isolated": "no"}, "expected true or false"),
        ([], "expected keys and values"),
    ],
)
def test_a_rule_that_is_not_understood_is_an_error(given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        policy_of(given)


@pytest.mark.parametrize(
    ("entry", "algorithm", "is_allowed"),
    [
        ("harbor/average", Algorithm("harbor/average"), True),
        ("harbor/average", Algorithm("harbor/average:1.2"), True),
        ("harbor/average", Algorithm("harbor/average-evil"), False),
        ("harbor/average", Algorithm("evil/harbor/average"), False),
        ("^harbor/[a-z]+", Algorithm("harbor/average-evil"), False),
        ("^harbor/[a-z]+", Algorithm("harbor/average\n"), False),
        (f"sha256:{DIGEST}", Algorithm("any", DIGEST), True),
        (f"sha256:{DIGEST}", Algorithm(f"sha256:{DIGEST}", "b" * 64), False),
        (f"sha256:{DIGEST}", Algorithm(f"sha256:{DIGEST}"), False),
        (f"harbor/average@sha256:{DIGEST}", Algorithm("harbor/average", DIGEST), True),
        (f"harbor/average@sha256:{DIGEST}", Algorithm("harbor/average", "b" * 64), False),
        (f"harbor/average@sha256:{DIGEST}", Algorithm("harbor/evil", DIGEST), False),
        ("ed25519:AAAA", Algorithm("any", DIGEST, ("ed25519:AAAA",)), True),
        ("ed25519:AAAA", Algorithm("ed25519:AAAA", DIGEST, ("ed25519:BBBB",)), False),
    ],
)
def test_algorithms_are_known_by_their_whole_name_digest_or_signer(
    entry: str, algorithm: Algorithm, is_allowed: bool
) -> None:
    policy = policy_of({"allowed_algorithms": [entry]})
    if is_allowed:
        policy.check_algorithm(algorithm)
        return
    with pytest.raises(NotAllowed, match="allowed_algorithms"):
        policy.check_algorithm(algorithm)


def refused(policy: Policy, name: str, *args: Any, **kwargs: Any) -> str:
    try:
        policy.check_function(name, args, kwargs)
    except NotAllowed as error:
        return error.rule
    return ""


def test_functions_and_their_arguments_are_those_in_the_list() -> None:
    policy = policy_of(ALL_RULES)
    where = "allowed_functions.partial_table.arguments"
    assert refused(policy, "partial_mean", 1, x=2) == ""
    assert refused(policy, "partial_meanest") == "allowed_functions"
    assert refused(policy, "partial_table", columns=["age"], bins=50, free={"any": [1]}) == ""
    assert refused(policy, "partial_table", columns="stage") == ""
    assert refused(policy, "partial_table", ["age"]) == where, "a position has no name that could be checked"
    assert refused(policy, "partial_table", columns=["age", "name"]) == f"{where}.columns"
    assert refused(policy, "partial_table", columns={"age": 1}) == f"{where}.columns"
    assert refused(policy, "partial_table", columns=[["name"]]) == f"{where}.columns"
    for bins in (0, 51, True, "7", float("nan"), float("inf"), None):
        assert refused(policy, "partial_table", bins=bins) == f"{where}.bins", bins
    assert refused(policy, "partial_table", other=1) == where


def test_patterns_and_lengths_of_arguments() -> None:
    policy = policy_of(
        {"allowed_functions": {"f": {"arguments": {"a": {"pattern": "[a-z]+"}, "b": {"maximum_length": 2}}}}}
    )
    assert refused(policy, "f", a="abc", b=[1, 2]) == ""
    assert refused(policy, "f", a="abc\n") and refused(policy, "f", a=["abc", 1]) and refused(policy, "f", b=[1, 2, 3])
    assert refused(policy, "f", b="abc") and refused(policy, "f", b={"x": 1, "y": 2, "z": 3})


def test_few_organizations_and_strange_initiators_are_refused() -> None:
    policy = policy_of(ALL_RULES)
    policy.check_organizations("partial_mean", initiators=[("North", "1")], number=3)
    policy.check_organizations("partial_mean", initiators=[("South", "2")], number=3)
    policy.check_organizations("central", initiators=[("North", "1")], number=None)
    with pytest.raises(NotAllowed, match="allowed_organizations: West is not in the list"):
        policy.check_organizations("partial_mean", initiators=[("West", "3")], number=3)
    with pytest.raises(NotAllowed, match="allowed_organizations: West is not in the list"):
        policy.check_organizations("partial_mean", initiators=[("North", "1"), ("West", "3")], number=3)
    with pytest.raises(NotAllowed, match="partial_mean was asked of 2 organizations, and must be of 3 or more"):
        policy.check_organizations("partial_mean", initiators=[("North", "1")], number=2)
    with pytest.raises(NotAllowed, match="must be of 4 or more"):
        policy.check_organizations("partial_table", initiators=[("North", "1")], number=3)


def test_calls_have_a_maximum_of_the_function_or_of_the_policy() -> None:
    policy = policy_of(ALL_RULES)
    assert (policy.maximum_calls_of("partial_table"), policy.maximum_calls_of("partial_mean")) == (5, 20)
    assert policy_of({}).maximum_calls_of("f") is None
    assert policy_of({"maximum_calls": 0}).maximum_calls_of("f") == 0


FRAME = pd.DataFrame({"age": [1, 2], "lab_x": [1, 2], "name": ["a", "b"], " NAME ": ["a", "b"], "other": [0, 0]})


def test_a_frame_has_only_columns_that_may_be_seen() -> None:
    assert list(policy_of(ALL_RULES).reduced("default", FRAME)) == ["age", "lab_x"]
    assert list(policy_of({"forbidden_columns": ["Name"]}).reduced("default", FRAME)) == ["age", "lab_x", "other"]
    assert policy_of({}).reduced("default", FRAME) is FRAME
    by_label = policy_of({"allowed_columns": {"default": ["age"]}})
    assert list(by_label.reduced("default", FRAME)) == ["age"] and by_label.reduced("other", FRAME) is FRAME
    assert policy_of({"allowed_columns": []}).reduced("default", FRAME).shape == (2, 0)


def test_a_forbidden_index_and_the_original_behind_a_slice_are_gone() -> None:
    reduced = policy_of({"allowed_columns": ["age"]}).reduced("default", FRAME.set_index("name"))
    assert list(reduced.index) == [0, 1] and reduced.index.name is None
    assert all(block.values.shape[0] == 1 for block in reduced._mgr.blocks)
    assert all(block.values.base is None or block.values.base.size <= 2 for block in reduced._mgr.blocks)


def test_rows_are_counted_and_their_number_is_not_told() -> None:
    policy = policy_of({"minimum_rows": 10})
    policy.check_rows("default", 10)
    with pytest.raises(NotAllowed) as caught:
        policy.check_rows("default", 7)
    assert "fewer than 10 rows" in str(caught.value) and "7" not in str(caught.value)
    with pytest.raises(NotAllowed, match="cannot be counted"):
        policy.check_rows("default", None)
    policy_of({"minimum_rows": {"other": 10}}).check_rows("default", 1)


def test_a_free_query_is_refused_where_rows_are_counted() -> None:
    """It could repeat one row until there are enough."""
    own = "SELECT age FROM patients"
    twice = "SELECT a.* FROM patients a, patients b WHERE a.id = 17"
    policy = policy_of({"minimum_rows": 10})
    policy.check_query("default", None, own)
    policy.check_query("default", own, own)
    with pytest.raises(NotAllowed, match="no list of queries"):
        policy.check_query("default", twice, own)
    policy = policy_of({"allowed_queries": [r"SELECT \w+ FROM patients"]})
    policy.check_query("default", "SELECT age FROM patients", None)
    with pytest.raises(NotAllowed, match="not in the list"):
        policy.check_query("default", "SELECT age FROM patients; DROP TABLE patients", None)
    policy_of({}).check_query("default", twice, own)
    policy_of({"minimum_rows": {"other": 10}}).check_query("default", twice, own)


def released(result: Any, *counts: str, least: int = 5) -> Any:
    return policy_of({"minimum_count": least}).released(result, counts)


def test_small_counts_are_suppressed_where_they_are_declared() -> None:
    result = {"table": {"I": {"m": 4, "f": 5}, "II": {"m": 0, "f": None}}, "n": 1, "mean": 3}
    assert released(result, "table", "n") == {
        "table": {"I": {"m": None, "f": 5}, "II": {"m": 0, "f": None}},
        "n": None,
        "mean": 3,
    }
    assert released(result, "table.*.m")["table"] == {"I": {"m": None, "f": 5}, "II": {"m": 0, "f": None}}
    assert released([{"n": 1}, {"n": 9}], "*.n") == [{"n": None}, {"n": 9}]
    assert released((1, 9), "0") == (None, 9)
    assert result["table"]["I"]["m"] == 4, "the given result is not changed"


def test_small_counts_of_arrays_and_frames_are_suppressed() -> None:
    assert np.isnan(released({"h": np.array([3, 0, 9])}, "h")["h"]).tolist() == [True, False, False]
    assert released({"n": np.int64(3)}, "n") == {"n": None}
    frame = pd.DataFrame({"n": [3, 9], "label": ["a", "b"]})
    assert released({"t": frame}, "t.n")["t"]["n"].isna().tolist() == [True, False]
    assert released(frame, "n")["label"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("result", "path"),
    [
        ({"other": 3}, "n"),
        ({"n": "3"}, "n"),
        ({"n": True}, "n"),
        ({"n": {"a": "3"}}, "n"),
        ([1], "1"),
        (3, "n"),
        ({"n": np.array(["3"])}, "n"),
    ],
)
def test_a_result_without_its_declared_counts_is_refused(result: Any, path: str) -> None:
    with pytest.raises(NotAllowed, match="minimum_count"):
        released(result, path)


def test_functions_declare_counts_in_their_docstring_and_the_policy_adds_its_own() -> None:
    policy = policy_of(ALL_RULES)
    text = "A table.\n\n    Counts: n, table.*\n"
    assert policy.counts_of("partial_table", text) == ("table.*", "n")
    assert policy.counts_of("partial_mean", text) == ("n", "table.*")
    assert policy.counts_of("partial_mean", "Counts nothing.") == () == policy.counts_of("partial_mean")
