"""Writes splits.json: digests of a split by each scheme, which must be the same on every platform."""

import json

from test_schemes import GOLDEN, SECTIONS, digest, numbers, split_of

if __name__ == "__main__":
    found = {name: digest(split_of(name, numbers(400), numbers(90), seed=3)) for name in SECTIONS}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
