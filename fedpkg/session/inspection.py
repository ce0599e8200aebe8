"""What a run would derive from a package, without running any of its code."""

from __future__ import annotations

from typing import TypeAlias

from fedpkg.compute_package.unpack import UnpackedPackage
from fedpkg.dispatch.forkserver import preloads_for
from fedpkg.dispatch.preload import Preload
from fedpkg.dispatch.site import PackageOnDisk

Preloads: TypeAlias = list[Preload]


def preloads_of_package(package: UnpackedPackage) -> Preloads:
    """The modules that warm executors import before a task begins, once for all scripts that share them."""
    found = preloads_for(PackageOnDisk(package.digest, package.root, package.folder, package.spec))
    return list(dict.fromkeys(found.values()))
