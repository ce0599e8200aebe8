"""A resident interpreter stays from task to task, and a task finds nothing of the one before."""

# ruff: noqa: E501  (each pair of scripts reads best on two lines)

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from workbench import Bench, inline, make_bench, marked

PID = "tell(pid=os.getpid())\n"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One slot, so that every task meets the interpreter of the one before."""
    folder = tmp_path_factory.mktemp("bleibt")
    imports = "import logging, decimal, signal, threading, socket, warnings, multiprocessing, random\n"
    bench = make_bench("resident", folder, inline(folder, imports), slots=1)
    yield bench
    bench.executor.close()
    assert marked(bench.mark) == []


def tells(bench: Bench, folder: Path, code: str, **fields: object) -> dict[str, object]:
    told = bench.told(inline(folder, code), **fields)
    assert isinstance(told, dict)
    return told


def test_interpreter_stays(bench: Bench, tmp_path: Path) -> None:
    assert len({tells(bench, tmp_path, PID)["pid"] for _ in range(5)}) == 1


def test_interpreter_stays_where_modules_without_a_file_belong_to_libraries(bench: Bench, tmp_path: Path) -> None:
    code = "import numpy.random\ntell(pid=os.getpid(), cython='cython_runtime' in sys.modules)"
    told = [tells(bench, tmp_path, code) for _ in range(3)]
    assert told[0]["cython"]
    assert told[1:] == told[:-1]


def test_installed_files_that_libraries_keep_open_stay_open(bench: Bench, tmp_path: Path) -> None:
    code = """
    import string
    string.font = getattr(string, "font", None) or os.open(string.__file__, os.O_RDONLY)
    tell(byte=len(os.pread(string.font, 1, 0)), pid=os.getpid())
    """
    first, second = (tells(bench, tmp_path, code) for _ in range(2))
    assert first == second


# What a task does, and how the next one would notice. Each pair runs in one interpreter.
LEAKS = {
    "a module of the package": ("import state\nstate.seen = 1", "import state\ntell(leak=hasattr(state, 'seen'))"),
    "lines of a file that were shown": (
        "import linecache\nlinecache.getline(__file__, 1)",
        "import linecache\ntell(leak=any('entrypoint.py' in path for path in linecache.cache))",
    ),
    "a global of __main__": ("seen = 1", "tell(leak='seen' in globals())"),
    "an entry of sys.modules": (
        "import sys, types\nsys.modules['made_up'] = types.ModuleType('made_up')",
        "tell(leak='made_up' in sys.modules)",
    ),
    "the end of a module of the interpreter that another holds": (
        "import string, sys\nname = next(name for name in sys.builtin_module_names if name not in sys.modules)\nstring.holds = __import__(name)",
        "import string\ntell(leak=not vars(string.holds))",
    ),
    "a module taken out of sys.modules": (
        "import sys\nsys.modules.pop('logging')",
        "import sys\nbefore = 'logging' in sys.modules\ntell(leak=not before)",
    ),
    "an environment variable": ("os.environ['LEAKED'] = '1'", "tell(leak='LEAKED' in os.environ)"),
    "an environment variable behind Python's back": (
        "os.putenv('LEAKED', '1')",
        "import subprocess\ntell(leak='LEAKED' in subprocess.check_output('env', text=True))",
    ),
    "an environment variable taken out of it": (
        "os.unsetenv('PATH')",
        "import subprocess\ntell(leak='\\nPATH=' not in '\\n' + subprocess.check_output('env', text=True))",
    ),
    "a codec": (
        "import codecs\ncodecs.register(lambda name: codecs.lookup('utf-8') if 'leaked' in name else None)",
        "import codecs\ntry:\n    codecs.lookup('leaked')\nexcept LookupError:\n    tell(leak=False)",
    ),
    "how something is pickled": (
        "import copyreg\ncopyreg.pickle(complex, lambda z: (complex, (0, 0)))",
        "import copy, copyreg\ntell(leak=copy.copy(1j) != 1j or copyreg.dispatch_table.get(complex) is not copyreg.pickle_complex)",
    ),
    "what kind of file a suffix says": (
        "import mimetypes\nmimetypes.add_type('text/leaked', '.leaked')",
        "import mimetypes\ntell(leak=mimetypes.guess_type('a.leaked')[0] is not None)",
    ),
    "decimals of new threads": (
        "import decimal\ndecimal.DefaultContext.prec = 3\ndecimal.DefaultContext.traps[decimal.Inexact] = True",
        "import decimal\nc = decimal.DefaultContext\ntell(leak=c.prec == 3 or c.traps[decimal.Inexact])",
    ),
    "the working directory": ("os.chdir('/tmp')", "tell(leak=os.getcwd() == '/tmp')"),
    "an entry of sys.path": ("sys.path.append('/leaked')", "tell(leak='/leaked' in sys.path)"),
    "sys.argv": ("sys.argv.append('leaked')", "tell(leak='leaked' in sys.argv)"),
    "a signal handler": (
        "import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        "import signal\ntell(leak=signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL)",
    ),
    "a blocked signal": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])",
        "import signal\ntell(leak=bool(signal.pthread_sigmask(signal.SIG_BLOCK, [])))",
    ),
    "an alarm": ("import signal\nsignal.alarm(100)", "import signal\ntell(leak=signal.alarm(0) != 0)"),
    "the file mode mask": ("os.umask(0o077)", "mask = os.umask(0o022)\nos.umask(mask)\ntell(leak=mask == 0o077)"),
    "a daemon thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
        "import threading\ntell(leak=threading.active_count() > 1)",
    ),
    "an open file": (
        "fd = os.open(__file__, os.O_RDONLY)",
        "tell(leak=any(os.path.realpath(f'/proc/self/fd/{n}').endswith('entrypoint.py') for n in os.listdir('/proc/self/fd')))",
    ),
    "an open socket": (
        "import socket\na, b = socket.socketpair()\na.detach(), b.detach()",
        "kinds = [os.path.realpath(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')]\n"
        "tell(leak=sum('socket:' in kind for kind in kinds) > 1)",
    ),
    "a log handler": (
        "import logging\nlogging.basicConfig(level=10)\nlogging.getLogger('x').addHandler(logging.NullHandler())",
        "import logging\ntell(leak=bool(logging.root.handlers or logging.root.level == 10 or logging.getLogger('x').handlers))",
    ),
    "a filter of warnings": (
        "import warnings\nwarnings.simplefilter('error')",
        "import warnings\ntell(leak=warnings.filters[0][0] == 'error')",
    ),
    "an exit handler": (
        "import atexit, builtins\natexit.register(lambda: os.environ.update(RAN=str(os.environ.get('RAN', 0)) + '1'))",
        "tell(leak='RAN' in os.environ)",
    ),
    "a hook for exceptions": ("sys.excepthook = print", "tell(leak=sys.excepthook is print)"),
    "a replaced stream": ("import io\nsys.stdout = io.StringIO()", "import io\ntell(leak=isinstance(sys.stdout, io.StringIO))"),
    "a closed stream": ("os.close(1)\nos.close(2)", "print('still here')\ntell(leak=not os.fstat(1))"),
    "a name among the builtins": (
        "import builtins\nbuiltins.leaked = 1\nbuiltins.len = None",
        "import builtins\ntell(leak=hasattr(builtins, 'leaked') or builtins.len is None)",
    ),
    "the recursion limit": ("sys.setrecursionlimit(77)", "tell(leak=sys.getrecursionlimit() == 77)"),
    "a limit of resources": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))",
        "import resource\ntell(leak=resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 64)",
    ),
    "a trace function": ("sys.settrace(lambda *_: None)", "tell(leak=sys.gettrace() is not None)"),
    "a finder of modules": ("sys.meta_path.insert(0, type('F', (), {})())", "tell(leak=type(sys.meta_path[0]).__name__ == 'F')"),
    "a stream closed by Python": ("sys.stdout.close()\nsys.stdin.close()", "print('still here')\ntell(leak=sys.stdin.closed)"),
    "a stream's encoding": (
        "sys.stdout.reconfigure(encoding='latin-1', errors='ignore')",
        "tell(leak=(sys.stdout.encoding, sys.stdout.errors) == ('latin-1', 'ignore'))",
    ),
    "a name of sys": ("sys.tracebacklimit = 0\nsys.breakpointhook = None", "tell(leak=hasattr(sys, 'tracebacklimit') or not sys.breakpointhook)"),
    "an environment that was replaced": ("os.environ = {'LEAKED': '1'}", "tell(leak=type(os.environ) is dict)"),
    "how processes are started": (
        "import multiprocessing\nmultiprocessing.set_start_method('spawn')",
        "import multiprocessing\nmultiprocessing.set_start_method('fork')\ntell(leak=False)",
    ),
    "the processors it may use": (
        "os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})",
        f"tell(leak=len(os.sched_getaffinity(0)) != {len(os.sched_getaffinity(0))})",
    ),
    "its niceness": ("os.nice(1)", f"tell(leak=os.nice(0) != {os.nice(0)})"),
    "a hard limit of resources": (
        "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 22))",
        "import resource\ntell(leak=resource.getrlimit(resource.RLIMIT_STACK)[1] == 1 << 22)",
    ),
    "a context variable": (
        "import decimal\ndecimal.getcontext().prec = 3",
        "import decimal\ntell(leak=decimal.getcontext().prec == 3)",
    ),
    "the garbage collector's settings": (
        "import gc\ngc.set_threshold(1)\ngc.callbacks.append(print)",
        "import gc\ntell(leak=gc.get_threshold()[0] == 1 or print in gc.callbacks)",
    ),
    "how long sockets wait": ("import socket\nsocket.setdefaulttimeout(1)", "import socket\ntell(leak=socket.getdefaulttimeout() == 1)"),
    "how logs are written": (
        "import logging\nlogging.captureWarnings(True)\nlogging.addLevelName(5, 'FIVE')\nlogging.setLoggerClass(type('L', (logging.Logger,), {}))",
        "import logging, warnings\n"
        "told = (logging.getLevelName(5), logging.getLoggerClass().__name__, warnings.showwarning.__module__)\n"
        "tell(leak=told != ('Level 5', 'Logger', 'warnings'))",
    ),
    "the state of random": ("import random\nrandom.seed(1)", "import random\ntell(leak=random.random() == random.Random(1).random())"),
}  # fmt: skip


@pytest.mark.parametrize("what", LEAKS)
def test_next_task_finds_nothing_of(bench: Bench, tmp_path: Path, what: str) -> None:
    leave, look = LEAKS[what]
    tells(bench, tmp_path, PID, seed=5)
    package = inline(
        tmp_path, leave + "\nwith open([w for w in sys.argv if w.startswith('/')][-1], 'w') as f: f.write('{}')"
    )
    (package.folder / "state.py").write_text("")
    bench.told(package, seed=5)
    package = inline(tmp_path, look)
    (package.folder / "state.py").write_text("")
    assert bench.told(package, seed=6) == {"leak": False}


# Of PyTorch and NumPy: what a task changes, and what the next one may expect.
SETTINGS = {
    "the default device": ("torch.set_default_device('meta')", "torch.ones(1).device.type == 'cpu'"),
    "a device that was entered": ("torch.device('meta').__enter__()", "torch.ones(1).device.type == 'cpu'"),
    "the default dtype": ("torch.set_default_dtype(torch.float64)", "torch.ones(1).dtype == torch.float32"),
    "no gradients": ("torch.set_grad_enabled(False)", "torch.is_grad_enabled()"),
    "inference": ("torch.inference_mode().__enter__()", "not torch.is_inference_mode_enabled()"),
    "automatic dtypes": ("torch.autocast('cpu').__enter__()", "(torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32"),
    "small numbers as 0": ("torch.set_flush_denormal(True)", "(torch.tensor([1e-40]) * 1).item() > 0"),
    "switches of backends": (
        "torch.backends.mkldnn.enabled = False\ntorch.backends.cudnn.enabled = False\ntorch.backends.cuda.enable_flash_sdp(False)",
        "torch.backends.mkldnn.enabled and torch.backends.cudnn.enabled and torch.backends.cuda.flash_sdp_enabled()",
    ),
    "precision, said in two ways": (
        "torch._C._set_cublas_allow_tf32(True)\nif hasattr(torch.backends, 'fp32_precision'): torch.backends.cuda.matmul.fp32_precision = 'ieee'",
        "torch.get_float32_matmul_precision() == 'highest'",
    ),
    "hooks of all modules": (
        "torch.nn.modules.module.register_module_forward_hook(lambda *_: torch.zeros(1))",
        "torch.nn.Identity()(torch.ones(1)).item() == 1",
    ),
    "a process group": (
        "torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)",
        "not torch.distributed.is_initialized()",
    ),
    "threads that can be set once": ("torch.set_num_interop_threads(1)", "torch.set_num_interop_threads(1) is None"),
    "a wrapped function": (
        "load = np.load\nnp.load = lambda *given, **more: load(*given, **{'allow_pickle': True, **more})",
        "np.load.__module__ == 'numpy'",
    ),
    "a method of a layer": (
        "forward = torch.nn.Linear.forward\ntorch.nn.Linear.forward = lambda self, x: forward(self, x) * 0",
        "torch.nn.Linear.forward.__module__ == 'torch.nn.modules.linear'",
    ),
    "a method of tensors": ("torch.Tensor.double_it = lambda self: self + self", "not hasattr(torch.Tensor, 'double_it')"),
    "a class that may be loaded": (
        "class Net(torch.nn.Linear):\n    def forward(self, x): return x\ntorch.serialization.add_safe_globals([Net])",
        "not any(one.__module__ == '__main__' for one in torch.serialization.get_safe_globals())",
    ),
    "a distribution's divergence": (
        "class Mine(torch.distributions.Normal):\n    def new(self): return Mine\n"
        "torch.distributions.kl.register_kl(Mine, Mine)(lambda one, other: one.new())",
        "not any(one.__name__ == 'Mine' for one, _ in torch.distributions.kl._KL_REGISTRY)",
    ),
    "NumPy's errors": ("np.seterr(all='raise')\nnp.seterrcall(print)", "np.geterr()['over'] == 'warn' and np.geterrcall() is None"),
    "NumPy's generator": ("np.random.set_bit_generator(np.random.PCG64(1))", "np.random.get_state()[0] == 'MT19937'"),
}  # fmt: skip


@pytest.mark.slow
def test_next_task_finds_pytorch_and_numpy_as_they_were(tmp_path: Path) -> None:
    imports = "import numpy as np\nimport torch, torch.distributed\n"
    bench = make_bench("resident", tmp_path, inline(tmp_path, imports), slots=1)
    try:
        for what, (leave, expected) in SETTINGS.items():
            code = f"{imports}{leave}\nos.chdir('/')\ntell()"
            assert bench.run(inline(tmp_path, code)).status == "ok", what
            assert tells(bench, tmp_path, f"{imports}tell(kept=bool({expected}))") == {"kept": True}, what
    finally:
        bench.executor.close()


# Ways in which a package's own function or class comes to live in a library. Each says what a new interpreter would.
LIVES_ON = {
    "a function that wraps a library's": """
        import string
        _capwords = string.capwords
        def capwords(text): return _capwords(text) + "!"
        string.capwords = capwords
        tell(said=string.capwords("a b"))
        """,
    "a lambda in a module of the package": """
        import string, wrapping
        tell(said=string.capwords("a b"))
        """,
    "a method of a library's class": """
        import string
        _substitute = string.Template.substitute
        def substitute(self, **values): return _substitute(self, **values) + "!"
        string.Template.substitute = substitute
        tell(said=string.Template("$a").substitute(a=1))
        """,
    "a bound method": """
        import string
        class Loud:
            def __init__(self, wrapped): self.wrapped = wrapped
            def __call__(self, text): return self.wrapped(text) + END
        END = "!"
        string.capwords = Loud(string.capwords)
        tell(said=string.capwords("a b"))
        """,
    "a module that was loaded by its path": """
        import importlib.util, string
        spec = importlib.util.spec_from_file_location("anything", "wrapping.py")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        tell(said=string.capwords("a b"))
        """,
    "a subclass in a library's registry": """
        import numbers
        class Mine(int): pass
        numbers.known = getattr(numbers, "known", []) + [type("Known", (Mine,), {"is_mine": lambda self: Mine})]
        tell(said=len(numbers.known))
        """,
    "a codec and a handler of its errors": """
        import codecs
        said = []
        for lookup in (lambda: codecs.lookup("made-up"), lambda: codecs.lookup_error("made-up")):
            try: said.append(lookup() is not None)
            except LookupError: said.append(False)
        def search(name): return codecs.lookup(BASE) if name.startswith("made") else None
        BASE = "utf-8"
        codecs.register(search)
        codecs.register_error("made-up", lambda error: (BASE, error.end))
        tell(said=said)
        """,
    "a function for a kind of values": """
        import copyreg
        class Mine: pass
        known = len(copyreg.dispatch_table)
        copyreg.pickle(Mine, lambda value: (Mine, ()))
        tell(said=len(copyreg.dispatch_table) - known)
        """,
    "an implementation of a generic function": """
        import pkgutil
        class Mine: pass
        known = len(pkgutil.iter_importer_modules.registry)
        @pkgutil.iter_importer_modules.register
        def of_mine(importer: Mine, prefix=""): return [Mine]
        tell(said=len(pkgutil.iter_importer_modules.registry) - known)
        """,
    "a file format": """
        import shutil
        known = [name for name, _ in shutil.get_archive_formats()]
        def pack(base, folder, **_): return os.path.join(base, folder)
        shutil.unregister_archive_format("made-up") if "made-up" in known else None
        shutil.register_archive_format("made-up", pack)
        tell(said="made-up" in known)
        """,
    "hooks of the interpreter": """
        import signal, sys, threading, warnings
        said = [sys.excepthook.__module__, sys.unraisablehook.__module__, threading.excepthook.__module__,
                warnings.showwarning.__module__, str(signal.getsignal(signal.SIGUSR1))]
        def hook(*_): raise NameError(said)
        sys.excepthook = sys.unraisablehook = threading.excepthook = warnings.showwarning = warnings.formatwarning = hook
        signal.signal(signal.SIGUSR1, hook)
        tell(said=said)
        """,
}  # fmt: skip


def test_package_that_changes_a_library_says_the_same_as_in_new_interpreters(bench: Bench, tmp_path: Path) -> None:
    wrapping = """
        import string
        wrapped = string.capwords
        string.capwords = lambda text: wrapped(text) + "!"
        """
    cold = make_bench("process", tmp_path, inline(tmp_path, ""), slots=1)
    try:
        for what, code in LIVES_ON.items():
            package = inline(tmp_path, code, wrapping__py=wrapping)
            expected = cold.told(package)
            assert [bench.told(package) for _ in range(3)] == [expected] * 3, what
    finally:
        cold.executor.close()


def test_interpreter_stays_where_libraries_only_remember_things(bench: Bench, tmp_path: Path) -> None:
    code = """
    import abc, collections, contextlib, copy, dataclasses, enum, functools, logging, pickle, re, typing, weakref
    from concurrent.futures import ThreadPoolExecutor
    import state

    T = typing.TypeVar("T")

    class Base(abc.ABC):
        @abc.abstractmethod
        def run(self): ...

    class Net(Base, typing.Generic[T]):
        def __init__(self): self.me, self.of = self, [lambda: self]
        def run(self) -> "Net": return self

    @dataclasses.dataclass
    class Point:
        x: typing.Optional[Net] = None
        y: typing.List["Net[int]"] = dataclasses.field(default_factory=list)

    class Colour(enum.Enum):
        RED = 1

    class Pair(typing.NamedTuple):
        first: int
        def both(self): return self

    @functools.lru_cache(maxsize=None)
    def cached(net): return net

    @functools.singledispatch
    def generic(value): return value

    @generic.register
    def of_net(value: Net): return value

    @contextlib.contextmanager
    def entered(): yield Net()

    def steps():
        while True: yield Net()

    class Loud(logging.StreamHandler):
        def emit(self, record): pass

    logging.getLogger("mine").addHandler(Loud())
    collections.abc.Sequence.register(Point)
    unfinished = steps()
    next(unfinished)
    with entered() as net:
        cached(net), generic(net), copy.deepcopy(net), pickle.loads(pickle.dumps(Colour.RED)), typing.get_type_hints(Point)
        weakref.finalize(net, print, "gone")
        isinstance(net, collections.abc.Mapping), isinstance(Point(), collections.abc.Sequence)
    try:
        re.sub("a", lambda found: found.missing, "a")
    except AttributeError as error:
        kept = error
    tell(pid=os.getpid())
    """
    package = inline(tmp_path, code, state__py="class State:\n    def get(self): return State")
    assert len({bench.told(package)["pid"] for _ in range(4)}) == 1


# What scripts often do before, or while, they train: the interpreter stays.
OFTEN = """
import faulthandler, gc, locale, logging, multiprocessing, random, resource, signal, socket, warnings
import numpy as np
import torch, torch.distributed

sys.path.insert(0, os.getcwd())
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("HOME", None)
os.chdir("/tmp")
os.umask(0o002)
random.seed(1), np.random.seed(1), torch.manual_seed(1)
logging.basicConfig(level=logging.INFO, filename="/dev/null")
logging.getLogger("torch").setLevel(logging.ERROR)
logging.addLevelName(5, "TRACE")
warnings.filterwarnings("ignore")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
signal.alarm(100)
socket.setdefaulttimeout(10)
sys.setrecursionlimit(5000)
sys.stdout.reconfigure(line_buffering=True, encoding="utf-8")
sys.excepthook = lambda *given: sys.__excepthook__(*given)
locale.setlocale(locale.LC_ALL, "C.UTF-8")
faulthandler.enable()
gc.disable(), gc.set_threshold(5000), gc.callbacks.append(lambda *_: None)
resource.setrlimit(resource.RLIMIT_NOFILE, (512, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
multiprocessing.set_start_method("spawn")
torch.multiprocessing.set_sharing_strategy("file_system")
torch.set_num_threads(2)
torch.set_default_dtype(torch.float64)
torch.set_default_device("cpu")
torch.set_grad_enabled(False)
torch.set_printoptions(precision=3), np.set_printoptions(precision=3), np.seterr(all="ignore")
torch.set_float32_matmul_precision("high")
torch.use_deterministic_algorithms(True, warn_only=True)
torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, True
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
left_open = os.open(__file__, os.O_RDONLY)
tell(pid=os.getpid())
"""


def test_interpreter_stays_after_what_scripts_often_change(tmp_path: Path) -> None:
    package = inline(tmp_path, OFTEN)
    bench = make_bench("resident", tmp_path, package, slots=1)
    try:
        assert len({bench.told(package)["pid"] for _ in range(4)}) == 1
    finally:
        bench.executor.close()


LIBRARY = """
import copyreg, fractions, importlib.machinery, logging, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.startswith("made_up_") else None
    def create_module(self, spec): return None
    def exec_module(self, module): pass

def seven(fraction): return fractions.Fraction, (7, 1)

sys.meta_path.append(Finder())
copyreg.pickle(fractions.Fraction, seven)
logger = logging.getLogger(__name__)
logger.setLevel(17)
"""


def test_what_a_library_set_up_when_a_task_imported_it_is_there_for_later_tasks(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "set_up_late.py").write_text(LIBRARY)
    code = f"""
    import fractions, importlib, logging, pickle
    sys.path.append({str(tmp_path / "library")!r})
    library = importlib.import_module("set_up_late")
    importlib.import_module(f"made_up_{{os.path.basename(os.getcwd())}}")
    logger = logging.getLogger("set_up_late")
    fraction = pickle.loads(pickle.dumps(fractions.Fraction(1, 2)))
    tell(fraction=str(fraction), level=logger.level, same=logger is library.logger, pid=os.getpid())
    """
    said = [tells(bench, tmp_path, code) for _ in range(3)]
    assert said == [{"fraction": "7", "level": 17, "same": True, "pid": said[0]["pid"]}] * 3


def test_processes_that_a_script_does_not_wait_for_end_before_their_task(bench: Bench, tmp_path: Path) -> None:
    code = """
    import multiprocessing, time
    def answer(path):
        time.sleep(0.1)
        tell(late=True)
    multiprocessing.get_context("fork").Process(target=answer, args=[sys.argv[-1]]).start()
    """
    assert [tells(bench, tmp_path, code) for _ in range(3)] == [{"late": True}] * 3


def test_warnings_are_shown_in_each_task(bench: Bench, tmp_path: Path) -> None:
    code = "import string, warnings\nwarnings.warn_explicit('again', UserWarning, string.__file__, 1, registry=vars(string).setdefault('__warningregistry__', {}))\ntell(pid=os.getpid())"
    results = [bench.run(inline(tmp_path, code)) for _ in range(3)]
    assert len({result.metrics["pid"] for result in results}) == 1
    assert all("UserWarning: again" in (result.task.folder / "stderr.log").read_text() for result in results)


def test_exit_handlers_and_pools_finish_within_their_task(bench: Bench, tmp_path: Path) -> None:
    code = """
    import atexit, time
    from concurrent.futures import ThreadPoolExecutor
    pool = ThreadPoolExecutor(2)
    pool.submit(time.sleep, 0.05)
    pool.submit(lambda: open("thread", "w").close())
    atexit.register(tell, done=os.path.exists("thread"), handler=True)
    tell(handler=False)
    """
    for _ in range(3):
        assert tells(bench, tmp_path, code)["handler"] is True


@pytest.mark.parametrize("code", ["sys.exit(3)", "raise ValueError('x')", "os._exit(4)", "os.kill(os.getpid(), 9)"])
def test_interpreter_is_replaced_after_a_failure(bench: Bench, tmp_path: Path, code: str) -> None:
    before = tells(bench, tmp_path, PID)["pid"]
    assert bench.run(inline(tmp_path, code)).status == "failed"
    after = tells(bench, tmp_path, PID)["pid"]
    assert after != before
    assert tells(bench, tmp_path, PID)["pid"] == after


def test_interpreter_is_replaced_after_a_time_limit(bench: Bench, tmp_path: Path) -> None:
    before = tells(bench, tmp_path, PID)["pid"]
    result = bench.run(inline(tmp_path, "import time\ntime.sleep(600)"), timeout_s=0.3)
    assert result.failure is not None and result.failure.kind == "timeout"
    assert tells(bench, tmp_path, PID)["pid"] != before


def test_interpreter_is_replaced_after_a_task_that_leaves_a_child(bench: Bench, tmp_path: Path) -> None:
    code = "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\ntell(pid=os.getpid(), child=child.pid)"
    told = tells(bench, tmp_path, code)
    assert not Path(f"/proc/{told['child']}").exists()
    assert tells(bench, tmp_path, PID)["pid"] != told["pid"]


def test_logs_are_each_task_s_own(bench: Bench, tmp_path: Path) -> None:
    for word in ("first", "second"):
        result = bench.run(inline(tmp_path, f"print('{word}')\ntell()"))
        assert (result.task.folder / "stdout.log").read_text() == f"{word}\n"


def test_memory_and_files_do_not_grow_over_many_tasks(bench: Bench, tmp_path: Path) -> None:
    code = "tell(pid=os.getpid(), files=len(os.listdir('/proc/self/fd')), modules=len(sys.modules))"
    package = inline(tmp_path, code)
    first, *_, last = [bench.told(package) for _ in range(60)]
    assert (first["pid"], first["files"]) == (last["pid"], last["files"])
    assert first["modules"] == last["modules"]
