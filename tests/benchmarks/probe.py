"""The mlp client with a stopwatch: goes into a copy of its package, and runs in a benchmark's own process too.

python probe.py train IN_MODEL OUT_MODEL    as entrypoint.py does, and write what each part took beside num_examples
"""

import resource
import sys
import time


class Stopwatch:
    """Milliseconds and minor page faults (memory touched, or copied, for the first time) of parts of a call."""

    def __init__(self):
        self.parts = {}
        self._last = self._now()

    def _now(self):
        return time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def lap(self, name):
        now = self._now()
        self.parts[name] = (1000 * (now[0] - self._last[0]), now[1] - self._last[1])
        self._last = self._now()


def timed_train(client, in_path, out_path, watch):
    """What ``train`` of the client's module does, part by part."""
    partition_id = client.read_partition_id()
    watch.lap("read task.json")
    x, y = client.make_examples(partition_id)
    watch.lap("make examples")
    model = client.load_model(in_path)
    watch.lap("load model")
    client.fit(model, x, y)
    watch.lap("train")
    client.save_model(model, out_path)
    watch.lap("save model")
    client.write_metadata(out_path, probe=watch.parts)


if __name__ == "__main__":
    stopwatch = Stopwatch()
    import entrypoint

    stopwatch.lap("compile and run the script")
    timed_train(entrypoint, *sys.argv[2:4], stopwatch)
