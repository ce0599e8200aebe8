"""Writes splits.json: digests of a split by each scheme, which must be the same on every platform."""

import json

from test_schemes import GOLDEN, SECTIONS, digest, numbers, split_of


def found() -> dict[str, str]:
    return {name: digest(split_of(name, numbers(400), numbers(90), seed=3)) for name in SECTIONS}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(found(), indent=1) + "\n")
