"""Alike wherever the tests run: no test asserts a time (one that hangs ends at pytest's timeout), signals arrive."""

import os
import signal

# Before PyTorch is imported: where tests run side by side, its threads wait for each other in busy loops, for more than
# they work. Tests about threads set their number themselves.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("fedpkg", deadline=None)
settings.load_profile("fedpkg")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's background job: fedpkg would ignore it, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
