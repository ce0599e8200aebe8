"""A client of a method with control variates: gets the sets x and control in one file, and sends both back.

python entrypoint.py build OUT [--keys=positions]
python entrypoint.py train IN OUT [--fails=WORDS]

What it sends depends on draws, on who it is and on its own control variate, which it keeps. WORDS are like
"client-1@2,client-3@1": who fails in which round, after having changed its state.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np


def main():
    command, *words = sys.argv[1:]
    paths = [word for word in words if not word.startswith("--")]
    options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    if command == "build":
        w, v = (np.random.standard_normal(shape).astype(np.float32) for shape in [(7, 3), (5,)])
        model = {"w": w, "steps": np.array(0), "v": v}
        if options.get("keys") == "positions":
            model = {str(i): array for i, array in enumerate(model.values())}
        np.savez(paths[0], **model)
        return
    task = json.loads(Path(os.environ["FEDPKG_TASK"]).read_text())
    sets = {name: {} for name in task["input_sets"]}
    with np.load(paths[0]) as arrays:
        for key in arrays.files:
            name, _, tensor = key.partition("/")
            sets[name][tensor] = arrays[key]
    x, control = sets["x"], sets["control"]
    who = task["partition_id"]
    kept = Path(os.environ["FEDPKG_STATE_DIR"], "control.npz")
    if kept.exists():
        with np.load(kept) as arrays:
            own = dict(arrays)
    else:
        own = {name: np.zeros_like(array) for name, array in control.items()}
    names = [name for name in x if x[name].dtype == np.float32]  # under positions, control counts its own
    step = {}
    for name, key in zip(names, control, strict=True):
        step[key] = np.random.standard_normal(x[name].shape).astype(np.float32) + who + control[key] - own[key]
        x[name] = x[name] - np.float32(0.1) * step[key]
        own[key] = own[key] - control[key] + step[key]
    for name in x.keys() - names:
        x[name] = x[name] + 1
    np.savez(kept, **own)
    if f"{task['client_id']}@{task['round_number']}" in options.get("fails", "").split(","):
        sys.exit(3)
    reply = {"x": x, "control": own}
    np.savez(paths[1], **{f"{name}/{key}": array for name in task["reply_sets"] for key, array in reply[name].items()})
    Path(f"{paths[1]}-metadata").write_text(json.dumps({"num_examples": 3 + 5 * who}))


if __name__ == "__main__":
    main()
