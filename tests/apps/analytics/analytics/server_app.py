"""Adds the histograms of two samples of the nodes."""

import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    found = []
    for size in (3, 2):
        nodes = random.sample(list(grid.get_node_ids()), size)
        content = RecordDict({"config": ConfigRecord({"low": 0.0, "high": 8.0})})
        replies = grid.send_and_receive([Message(content, node, "query") for node in nodes])
        totals = defaultdict(int)
        for reply in replies:
            if reply.has_content():
                for name, counts in reply.content["query_results"].items():
                    totals[name] = totals[name] + np.array(counts)
        found.append({"nodes": nodes, "histograms": {name: counts.tolist() for name, counts in totals.items()}})
    Path(context.run_config["save-in"], "found.json").write_text(json.dumps(found))
