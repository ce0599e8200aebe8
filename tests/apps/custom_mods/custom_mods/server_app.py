"""Sends a number to be changed by the mods."""

import json
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    found = []
    for message_type in (MessageType.TRAIN, MessageType.QUERY, MessageType.TRAIN):
        content = RecordDict({"arrays": ArrayRecord([np.zeros(2)]), "config": ConfigRecord({"x": 5})})
        messages = [Message(content, node, message_type) for node in grid.get_node_ids()]
        found.append([dict(reply.content["metrics"]) for reply in grid.send_and_receive(messages)])
    Path(context.run_config["save-in"], "found.json").write_text(json.dumps(found))
