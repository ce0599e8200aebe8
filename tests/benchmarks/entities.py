"""A file of 100,000 entities, read, checked and shown: `fedpkg cluster check` and `fedpkg cluster tree`.

python entities.py [--entities 100000] [--repeat 3]

Devices below 2000 sites, these below 400 regions in 20 countries, in a CSV file. Each turn is a process.
"""

import csv
import sys
import tempfile
from pathlib import Path

from figures import HERE, Figure, parser, run_measured, save, spread, table

LEVELS = (("country", 20), ("region", 400), ("site", 2000))
RUN_YAML = """\
package: {package}
seed_model: seed.npz
rounds: 1
clients: {{entities: entities.csv}}
topology: {{from: entities}}
"""


def write(folder, number):
    rows, above = [["id", "parent", "kind", "speed"], ["earth", "", "", ""]], ["earth"]
    for name, count in LEVELS:
        ids = [f"{name}-{k}" for k in range(count)]
        rows += [[one, above[k % len(above)], "", ""] for k, one in enumerate(ids)]
        above = ids
    left = number - len(rows) + 1
    rows += [[f"device-{k}", above[k % len(above)], ("phone", "server")[k % 2], k % 100 / 100] for k in range(left)]
    with (folder / "entities.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (folder / "run.yaml").write_text(RUN_YAML.format(package=HERE / "packages" / "mlp"))


def main():
    options = parser(__doc__)
    options.add_argument("--entities", type=int, default=100_000, metavar="N", help="at least 3000 (default: 100000)")
    options.add_argument("--repeat", type=int, default=3, metavar="N", help="turns (default: 3)")
    given = options.parse_args()
    rows, figures = [], []
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder:
        write(Path(folder), given.entities)
        for verb in ("check", "tree"):
            command = [sys.executable, "-m", "fedpkg", "cluster", verb, "run.yaml"]
            runs = [run_measured(command, cwd=folder) for _ in range(given.repeat)]
            wall, cpu, _ = zip(*runs, strict=True)
            what = f"cluster {verb} of {given.entities} entities"
            rows.append((what, spread(wall), spread(cpu)))
            figures.append(Figure(f"{what}, s", spread(wall).split()[0], "< 2"))
    table(rows, ["", "wall s", "CPU s"])
    save(given.figures, figures)


if __name__ == "__main__":
    main()
