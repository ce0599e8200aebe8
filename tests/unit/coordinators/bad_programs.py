"""Programs that coordinate badly, and what is said of each."""

from __future__ import annotations

IMPORTS = "import os, sys\nfrom fedpkg.client import coordinator\n"
LINE = IMPORTS + "line = coordinator._Line()\ntold = line.hello()\nfile = told['out'] + '/x.npz'\n"
WAITS = "\nline.receive()\n"
COMMITS = "\nline.send({'type': 'commit', 'model': 'x.npz'})" + WAITS
ROUNDS = IMPORTS + "for step in coordinator.rounds():\n    "

BAD = {
    "not a message of the protocol: .*; it sent nonsense": LINE + r"os.write(line._fd, b'\0\0\0\x08nonsense')" + WAITS,
    "a message of 4294967295 bytes; at most 8388608": LINE + r"os.write(line._fd, b'\xff' * 8)" + WAITS,
    "contains unknown field `surprise`": LINE + "line.send({'type': 'commit', 'surprise': 1})" + WAITS,
    r"'\.\./x\.npz' is not the name of a file": LINE + "line.send({'type': 'commit', 'model': '../x.npz'})" + WAITS,
    "it sends 0 requests at once": LINE + "line.send({'type': 'ask', 'requests': []})" + WAITS,
    r"its file 'x\.npz' cannot be read: Too many levels": LINE + "os.symlink('/etc/passwd', file)" + COMMITS,
    r"its file 'x\.npz' cannot be read: No such file": LINE + COMMITS,
    r"its file 'x\.npz' is not a regular file": LINE + "os.mkfifo(file)" + COMMITS,
    r"its file 'x\.npz' has 4294967296 bytes; at most": LINE + "open(file, 'wb').truncate(1 << 32)" + COMMITS,
    r"its file 'x\.npz' is not a model: ": LINE + "open(file, 'wb').write(b'PK nothing')" + COMMITS,
    r"its file 'x\.npz' does not contain records: ": LINE
    + "import numpy\nnumpy.savez(file, w=numpy.zeros(3))\n"
    + "asks = {'id': '1', 'payload': 'x.npz', 'payload_kind': 'records'}\n"
    + "line.send({'type': 'ask', 'requests': [asks]})"
    + WAITS,
    "the next model does not fit": LINE + "import numpy\nnumpy.savez(file, other=numpy.zeros(3))" + COMMITS,
    "must start with a hello of protocol 1": LINE.replace(
        "line.hello()", "line.call({'type': 'hello', 'protocol': 7})"
    ),
    "it sent a second hello": LINE + "line.hello()",
    "it gave up: nobody is here": ROUNDS + "step.fail('nobody is here'); step._line.receive()",
    "clients of the request: unknown clients: nobody": ROUNDS + "step.ask('train', clients=['nobody'])",
    "it ended with code 0 before it committed the round": ROUNDS + "break",
    r"(?s)it gave up: first.{1000}.*….*.{1000}last": ROUNDS
    + "step.fail('first' + 9999 * ' more' + 'last'); step._line.receive()",
    r"(?s)it ended with code 1 .*\(3 times in this round\); its log ends with.*oh no": "raise ValueError('oh no')",
    r"sent nothing for 0\.5 s": LINE + WAITS,
    "(?s)it ended with code 5 .*its log ends with.*flood": "import sys\nprint('flood ' * 1000000)\nsys.exit(5)",
}
