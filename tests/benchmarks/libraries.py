"""Warm and cold tasks of packages that import common libraries, and what the warm interpreter leaves out.

python libraries.py [--repeat 5] [NAME ...]

For each library there is a package of one script that imports it and does a little with it. It runs as cold tasks
(``process``) and warm ones (``forkserver``, ``resident``), one after the other; the table has the median seconds of a
task. Libraries that are not installed are named as untried.
"""

import importlib.util
import json
import logging
import re
import statistics
import sys
import tempfile
from pathlib import Path

from figures import parser, table

TELL = "\nimport json, sys\njson.dump({'n': 1}, open(sys.argv[-1], 'w'))\n"
# name → (modules that must be installed, script)
LIBRARIES = {
    "numpy": (["numpy"], "import numpy as np\n(np.eye(50) @ np.eye(50)).sum()"),
    "scikit-learn": (
        ["sklearn"],
        "import numpy as np\nfrom sklearn.linear_model import LogisticRegression\n"
        "LogisticRegression().fit(np.eye(8), [0, 1] * 4)",
    ),
    "torch": (["torch"], "import torch\nm = torch.nn.Linear(2, 1)\ntorch.optim.SGD(m.parameters(), lr=0.1).step()"),
    "pandas + pyarrow": (
        ["pandas", "pyarrow"],
        "import pandas as pd\nf = pd.DataFrame({'a': ['x', 'y'] * 50, 'b': range(100)})\nf.groupby('a').b.sum()",
    ),
    "pandas + pyarrow, torch": (
        ["pandas", "pyarrow", "torch"],
        "import pandas as pd\nimport torch\nm = torch.nn.Linear(2, 1)\ntorch.optim.SGD(m.parameters(), lr=0.1).step()\n"
        "pd.DataFrame({'a': ['x', 'y'] * 50})",
    ),
    "polars": (["polars"], "import polars as pl\npl.DataFrame({'a': [1, 2]}).select(pl.col('a').sum())"),
    "datasets": (["datasets"], "from datasets import Dataset\nDataset.from_dict({'a': [1, 2]})[0]"),
    "transformers": (
        ["transformers", "torch"],
        "from transformers import GPT2Config, GPT2LMHeadModel, Trainer\n"
        "GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=16, n_positions=8))",
    ),
    "tensorflow": (["tensorflow"], "import tensorflow as tf\ntf.constant([1.0]) + 1"),
    "jax": (["jax"], "import jax.numpy as jnp\n(jnp.ones(3) + 1).block_until_ready()"),
    "xgboost": (["xgboost"], "import numpy as np\nimport xgboost as xgb\nxgb.DMatrix(np.eye(4), label=[0, 1, 0, 1])"),
    "lightgbm": (
        ["lightgbm"],
        "import numpy as np\nimport lightgbm as lgb\nlgb.Dataset(np.eye(40), label=[0, 1] * 20)",
    ),
    "opencv": (["cv2"], "import cv2\nimport numpy as np\ncv2.blur(np.zeros((9, 9), np.uint8), (3, 3))"),
    "grpc": (["grpc"], "import grpc\ngrpc.insecure_channel('localhost:1').close()"),
    "matplotlib": (
        ["matplotlib"],
        "import matplotlib.pyplot as plt\nfrom io import BytesIO\nplt.plot([1, 2])\nplt.savefig(BytesIO())",
    ),
    "matplotlib, use first": (
        ["matplotlib"],
        "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nfrom io import BytesIO\n"
        "plt.plot([1, 2])\nplt.savefig(BytesIO())",
    ),
    "numba": (["numba"], "import numba\nnumba.njit(lambda x: x + 1)(1)"),
    "opacus": (["opacus"], "from opacus import PrivacyEngine\nPrivacyEngine(accountant='rdp')"),
}


class Warnings(logging.Handler):
    """Keeps what the executor says of imports that it leaves out."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        said = record.getMessage().partition("reason=")[2]
        found = re.match(r"every task imports (.*?) again|(\S+) is imported again", said)
        self.said.append((found[1] or found[2]) if found else said)


def measure(script, folder, executor_name, repeat):
    """Median seconds of a task, and what was said; the first task of an executor is not counted."""
    from fedpkg.compute_package.spec import EntryPoint, PackageSpec
    from fedpkg.devices import cpu_slots
    from fedpkg.dispatch.forkserver import forkserver_executor
    from fedpkg.dispatch.process import process_executor
    from fedpkg.dispatch.resident import resident_executor
    from fedpkg.dispatch.site import PackageOnDisk, Site
    from fedpkg.types import ReplyKind
    from fedpkg.waist.order import Order, ReplySpec, digest_of

    source = folder / "client"
    source.mkdir(parents=True, exist_ok=True)
    (source / "main.py").write_text(script + TELL)
    package = PackageOnDisk("0", source, source, PackageSpec({"validate": EntryPoint("validate", "python main.py")}))
    options = {"slots": cpu_slots(1), "environment": {}, "log_folder": folder / executor_name / "log"}
    site, spec = Site(folder, package), ReplySpec(kind=ReplyKind.METRICS)
    if executor_name == "process":
        executor = process_executor(site, **options)
    else:
        make = {"forkserver": forkserver_executor, "resident": resident_executor}[executor_name]
        executor = make(site, **options, package=package)
    executor.know(spec, digest_of(spec))
    seconds = []
    logger, handler = logging.getLogger("fedpkg.dispatch"), Warnings()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        for number in range(repeat + 1):
            order = Order(
                task_id=str(number),
                session_id=executor_name,
                round_number=number,
                client_id="client",
                entry_point="validate",
                package=package.digest,
                reply_spec=digest_of(spec),
            )
            result = executor.submit(order).result()
            if result.status != "ok":
                return None, [f"failed: {result.log_tail.strip().splitlines()[-1:]}"]
            seconds.append(result.wall_s)
    finally:
        executor.close()
        logger.removeHandler(handler)
    return statistics.median(seconds[1:]), handler.said


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--repeat", type=int, default=5, metavar="N", help="tasks that are measured of each kind")
    arguments.add_argument("names", nargs="*", metavar="NAME", help="libraries to try (all)")
    given = arguments.parse_args()
    rows = []
    for name, (modules, script) in LIBRARIES.items():
        if given.names and name not in given.names:
            continue
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            rows.append([name, "", "", "", "not installed: untried"])
            continue
        with tempfile.TemporaryDirectory(prefix="libraries-") as folder:
            found = {
                kind: measure(script, Path(folder), kind, given.repeat)
                for kind in ("process", "forkserver", "resident")
            }
        said = "; ".join(dict.fromkeys(found["forkserver"][1])) or "nothing"
        cells = ["failed" if seconds is None else f"{seconds:.2f}" for seconds, _ in found.values()]
        rows.append([name, *cells, said])
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    table(rows, ["library", "process s", "forkserver s", "resident s", "left out"])


if __name__ == "__main__":
    main()
