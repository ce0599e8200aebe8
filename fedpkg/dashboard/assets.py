"""The files that pages load: style sheets and scripts of ours, and plotly's script from its installed package."""

from __future__ import annotations

import functools
import gzip
import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fedpkg.pictures.palette import style

TEMPLATES = Path(__file__).parent / "templates"
_STATIC = Path(__file__).parent / "static"
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PLOTLY = "plotly.js"
CHARTS = "charts.css"  # made from the palette of the static charts


@functools.cache
def _files() -> dict[str, Path]:
    """Name → file. Nothing else is served, whatever an address says."""
    found = {path.name: path for path in sorted(_STATIC.iterdir()) if path.suffix in _KINDS}
    spec = find_spec("plotly")  # finds the package without importing it
    for folder in (spec and spec.submodule_search_locations) or ():
        script = Path(folder) / "package_data" / "plotly.min.js"
        if script.is_file():
            found[PLOTLY] = script
    return found


@functools.cache
def version() -> str:
    """Changes with every file, so that browsers may keep files for ever."""
    digest = hashlib.sha256(style().encode())
    for name, path in _files().items():
        known = f"{path.stat().st_size} {path.stat().st_mtime_ns}".encode() if name == PLOTLY else path.read_bytes()
        digest.update(name.encode() + known)
    return digest.hexdigest()[:12]


def static_url(name: str) -> str:
    return f"/static/{version()}/{name}"


@dataclass(frozen=True)
class Static:
    """A file that is served."""

    data: bytes
    kind: str
    is_compressed: bool = False


def static_file(name: str) -> Static | None:
    """A file by its name; None: there is none."""
    if name == CHARTS:
        return Static(style().encode(), _KINDS[".css"])
    return _read(name) if name in _files() else None


@functools.cache
def _read(name: str) -> Static:
    path = _files()[name]
    data, kind = path.read_bytes(), _KINDS[path.suffix]
    return Static(gzip.compress(data, 6), kind, is_compressed=True) if name == PLOTLY else Static(data, kind)
