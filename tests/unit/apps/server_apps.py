"""ServerApps whose clients are those of tests/packages/records-wire, without a ClientApp."""

IMPORTS = """
import logging, os, random, signal, sys, time
import numpy as np
from fedpkg.apps import ArrayRecord, ConfigRecord, Context, Error, Grid, Message, MetricRecord, RecordDict, ServerApp

app = ServerApp()
log = logging.getLogger("my_app")

def mean(replies):
    replies = [one for one in replies if one.has_content()]
    names = replies[0].content["arrays"]
    return ArrayRecord({n: np.mean([r.content["arrays"][n].numpy() for r in replies], axis=0) for n in names})
"""

ROUNDS = (
    IMPORTS
    + """
@app.main()
def main(grid: Grid, context: Context) -> None:
    arrays = ArrayRecord({"w": np.zeros(3), "b": np.random.rand(2, 2)})
    grid.announce(3)
    for number in range(1, 4):
        nodes = random.sample(grid.get_node_ids(), 2)
        content = RecordDict({"arrays": arrays, "config": ConfigRecord({"lr": 0.1, "round": number})})
        die(f"begun-{number}")
        replies = grid.send_and_receive([Message(content, node, "train", group_id=str(number)) for node in nodes])
        assert [one.metadata.src_node_id for one in replies] == nodes
        die(f"asked-{number}")
        arrays = mean(replies)
        content = RecordDict({"arrays": arrays})
        grid.send_and_receive([Message(content, node, "evaluate") for node in grid.get_node_ids()])
        log.info("round %d of %s", number, sorted(context.run_config))
        grid.end_round(arrays, {"server-loss": float(arrays["w"].numpy().mean()), "strange": float("nan")})
        die(f"ends-{number}")
"""
)

DIES = '''
def die(where):
    """Die once, at the first word of the configuration that is such a place."""
    path = os.path.join(MARKS, where)
    if where in PLACES and not os.path.exists(path):
        open(path, "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
'''


def dying(app: str, marks: str, *places: str) -> str:
    """The app, which is killed once at each of these places."""
    return f"MARKS, PLACES = {marks!r}, {places!r}\n{app.replace('@app.main()', DIES + '@app.main()')}"
