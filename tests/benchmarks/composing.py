"""CPU milliseconds until an experiment is composed and checked, beside a plain run.yaml with the same keys.

python composing.py [--repeat 7] [--points 50]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import Figure, parser, save, spread, table

KEYS = """
package: client
rounds: 10
clients: {count: 10, data: {dataset: sklearn/digits, partition: {name: dirichlet, alpha: 0.3}}}
strategy: {name: fedprox, proximal_mu: 0.1}
arguments: {train: {lr: 0.1, epochs: 2}}
validation: {every: 2}
"""
ROOT = """
defaults: [data: option_0, method: option_0, executor: option_0, _self_]
params: {lr: 0.1}
package: client
rounds: 10
arguments: {train: {lr: "${lr}", epochs: 2}}
validation: {every: 2}
"""
GROUPS = {
    "data": "clients: {count: 10, data: {dataset: sklearn/digits, partition: {name: dirichlet, alpha: 0.3}}}",
    "method": "strategy: {name: fedprox, proximal_mu: 0.1}",
    "executor": "workers: 2",
}
NUM_OPTIONS = 10  # of each group
# Prints the milliseconds of the first configuration, of each further one, and whether hydra was loaded.
COMPOSE = """
import json, sys, time
from pathlib import Path
began = time.process_time()
from fedpkg.experiments.composing import compose
compose(sys.argv[1], ["method=option_3", "lr=0.05"])
first = time.process_time() - began
further = []
for number in range(int(sys.argv[2])):
    began = time.process_time()
    compose(sys.argv[1], ["method=option_4", f"lr={number}", f"seed={number}"])
    further.append(1000 * (time.process_time() - began))
print(json.dumps([1000 * first, further, "hydra" in sys.modules]))
"""
PLAIN = """
import json, sys, time
from pathlib import Path
began = time.process_time()
from fedpkg.session.configuration import load
load(Path(sys.argv[1]), ["arguments.train.lr=0.05"])
first = time.process_time() - began
print(json.dumps([1000 * first, [], "hydra" in sys.modules]))
"""


def measured(code, *arguments):
    ran = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def main():
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=7, metavar="N", help="fresh interpreters (default: 7)")
    options.add_argument("--points", type=int, default=50, metavar="N", help="further points in each (default: 50)")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder:
        place = Path(folder)
        (place / "experiment.yaml").write_text(ROOT)
        for group, text in GROUPS.items():
            (place / group).mkdir()
            for number in range(NUM_OPTIONS):
                (place / group / f"option_{number}.yaml").write_text(text)
        plain_file = place / "plain.yaml"
        plain_file.write_text(KEYS)
        composed, plain = [], []
        for _ in range(given.repeat):  # alternating, so that both see the same load
            plain.append(measured(PLAIN, plain_file))
            composed.append(measured(COMPOSE, place, given.points))
    assert not any(loaded for *_, loaded in plain), "a plain run.yaml loaded hydra"
    further = [value for _, values, _ in composed for value in values]
    added = [mine[0] - other[0] for mine, other in zip(composed, plain, strict=True)]
    rows = [
        ("plain run.yaml, with its imports", spread([first for first, *_ in plain]), ""),
        ("experiment of 4 files, with its imports", spread([first for first, *_ in composed]), ""),
        ("what composing adds", spread(added), "< 250"),
        ("each further point", spread(further), "< 250"),
    ]
    print(f"Composing and checking: medians (min – max) of {given.repeat} fresh interpreters")
    table(rows, ["configuration", "CPU, ms", "goal"])
    save(given.figures, [Figure(f"{name}, ms of CPU", value, goal) for name, value, goal in rows])


if __name__ == "__main__":
    main()
