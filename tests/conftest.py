"""Alike wherever the tests run: no test asserts a time (one that hangs ends at pytest's timeout), signals arrive."""

import os
import re
import signal
import sys

# Before PyTorch is imported: where tests run side by side, its threads wait for each other in busy loops, for more than
# they work. Tests about threads set their number themselves.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

settings.register_profile("fedpkg", deadline=None)
settings.load_profile("fedpkg")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's background job: fedpkg would ignore it, too
    signal.signal(signal.SIGINT, signal.default_int_handler)


_RECURSION_LIMIT = sys.getrecursionlimit()


def pytest_runtest_teardown() -> None:
    """Readers of deep trees raise the limit of the process, where whatever goes too deep then takes far longer."""
    sys.setrecursionlimit(_RECURSION_LIMIT)


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every push runs the cases of a test that its marker `every_push` selects by a pattern; the others are soak."""
    used: dict[tuple[str, str], bool] = {}
    for item in items:
        for mark in item.iter_markers("every_push"):
            which = item.nodeid.partition("[")[0], mark.args[0]
            is_chosen = re.search(mark.args[0], item.callspec.id) is not None  # type: ignore[attr-defined]
            used[which] = used.get(which, False) or is_chosen
            if not is_chosen:
                item.add_marker(pytest.mark.soak)
    dead = [" ".join(which) for which, is_used in used.items() if not is_used]
    if dead and not any("::" in argument for argument in config.args):
        raise pytest.UsageError(f"every_push selects no case of {'; '.join(dead)}")
