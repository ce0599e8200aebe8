"""CPU seconds until small commands are done, and whether they loaded PyTorch or NumPy.

python start_up.py [--repeat 5]
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import HERE, Figure, parser, run_measured, save, spread, table

MLP = HERE / "packages" / "mlp"
GOALS = {"fedpkg --help": "< 0.15"}
# Runs the command given as arguments, then says which heavy modules it has loaded.
WHICH_LOADED = """
import sys
from fedpkg.cli.main import run_command
code = run_command(sys.argv[1:])
print("loaded:", *(name for name in ("torch", "numpy") if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""
WHICH_LOADED_BY_IMPORT = """
import sys, fedpkg
print("loaded:", *(name for name in ("torch", "numpy") if name in sys.modules), file=sys.stderr)
"""


def heavy_modules(code, arguments):
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(f"fedpkg {' '.join(arguments)}: exit code {process.returncode}\n{process.stderr[-3000:]}")
    last = process.stderr.strip().splitlines()[-1]
    return last.removeprefix("loaded:").strip() or "neither"


def make_home(path):
    """A home without sessions."""
    from fedpkg.stores.home import Home
    from fedpkg.stores.opening import open_store

    open_store(Home.open(path)).close()


def main():
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=5, metavar="N", help="runs of each (default: 5)")
    given = options.parse_args()
    rows, figures = [], []
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder:
        home = Path(folder) / "home"
        commands = {
            "fedpkg --help": ["--help"],
            "fedpkg package build": ["package", "build", str(MLP), "-o", str(Path(folder) / "mlp.tar.gz")],
            "fedpkg config show": ["config", "show", str(MLP / "w1.yaml")],
            "fedpkg session list": ["session", "list", "--home", str(home)],
        }
        make_home(home)
        series = {
            "python -c pass": (["-c", "pass"], None),
            "import fedpkg": (["-c", "import fedpkg"], heavy_modules(WHICH_LOADED_BY_IMPORT, [])),
        }
        for name, arguments in commands.items():
            series[name] = (["-m", "fedpkg", *arguments], heavy_modules(WHICH_LOADED, arguments))
        for name, (arguments, loaded) in series.items():
            cpu_s, wall_s = [], []
            for _ in range(given.repeat):
                wall, cpu, _ = run_measured([sys.executable, *arguments])
                wall_s.append(wall)
                cpu_s.append(cpu)
            rows.append((name, spread(cpu_s, 3), spread(wall_s, 3), loaded or "–", GOALS.get(name, "")))
            if loaded:
                value = f"{statistics.median(cpu_s):.3f}, loads {loaded}"
                figures.append(Figure(f"{name}, s of CPU", value, GOALS.get(name, "")))
    print(f"Start-up: medians (min – max) of {given.repeat}")
    table(rows, ["command", "CPU, s", "wall, s", "torch, numpy loaded", "goal, CPU s"])
    save(given.figures, figures)


if __name__ == "__main__":
    main()
