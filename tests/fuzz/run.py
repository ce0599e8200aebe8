"""Fuzz one target with atheris, by hand: ``python tests/fuzz/run.py tar -max_total_time=300``.

Needs ``pip install atheris``, which is no dependency. Good files of the target are the first corpus; what breaks it is
left as ``crash-…`` in the current folder, and ``python tests/fuzz/run.py tar crash-…`` repeats it.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fedpkg", "tarfile", "zipfile", "yaml"]):
    from targets import TARGETS, mutated


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"python tests/fuzz/run.py {'|'.join(TARGETS)} [options of libFuzzer]")
    target = TARGETS[sys.argv[1]]

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        if data and seed % 2:
            return mutated(data, random.Random(seed))[:max_size]
        return bytes(atheris.Mutate(data, max_size))

    arguments = [sys.argv[0], "-max_len=65536", "-timeout=10", "-rss_limit_mb=2048", *sys.argv[2:]]
    with tempfile.TemporaryDirectory() as corpus:
        if not any(Path(word).is_file() for word in sys.argv[2:]):
            for number, seed in enumerate(target.seeds()):
                (Path(corpus) / str(number)).write_bytes(seed)
            arguments.append(corpus)
        atheris.Setup(arguments, target.run, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
