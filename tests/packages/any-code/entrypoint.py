"""A client that does what its argument says. NumPy only, and only where the code imports it.

python entrypoint.py build|train|validate [IN] OUT --code=CODE
python entrypoint.py startup            does what AT_STARTUP in the environment says

The code has `tell(**values)`, which writes metrics, `send(num_examples, **arrays)`, which writes an update, the words
of the command line as `words`, and the path of the input as `given`.
"""

import json
import os
import sys

words = sys.argv[2:]
paths = [word for word in words if not word.startswith("--")]
given, out = paths[0] if len(paths) > 1 else None, paths[-1] if paths else None


def tell(**values):
    with open(out, "w") as file:
        json.dump(values, file)


def send(num_examples, **arrays):
    import numpy as np

    np.savez(out, **arrays)
    with open(out + "-metadata", "w") as file:
        json.dump({"num_examples": num_examples}, file)


if __name__ == "__main__":
    code = next((word.partition("=")[2] for word in words if word.startswith("--code=")), "")
    exec(os.environ.get("AT_STARTUP", "") if sys.argv[1] == "startup" else code)
