"""Stands in for a Python interpreter: has a warm parent run what it was asked to, and ends as that process ends.

python -I -S warm_client.py SOCKET (SCRIPT | -m MODULE | -c CODE) [WORDS …]

Its standard streams, folder and environment are those of the new process. SIGINT, SIGTERM and SIGHUP are passed on;
where the client is killed, the parent kills the process. See warm.py.
"""

import json
import os
import signal
import socket
import sys


def main():
    line = socket.socket(socket.AF_UNIX)
    line.connect(sys.argv[1])
    request = json.dumps({"words": sys.argv[2:], "cwd": os.getcwd(), "environ": dict(os.environ)}).encode()
    socket.send_fds(line, [len(request).to_bytes(4, "big")], [0, 1, 2])
    line.sendall(request)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: line.sendall(bytes([number])))
    status = line.recv(4)
    if len(status) != 4:
        sys.exit("warm_client.py: the warm parent is gone")
    code = int.from_bytes(status, "big", signed=True)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
