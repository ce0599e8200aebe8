"""Sends each node its own 1 kB."""

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


def message(node_id, number):
    content = RecordDict({"config": ConfigRecord({"bytes": number.to_bytes(2, "big") * 512})})
    return Message(content, dst_node_id=node_id, message_type=MessageType.QUERY)


@app.main()
def main(grid, context):
    for _ in range(context.run_config["num-server-rounds"]):
        replies = grid.send_and_receive([message(node, node) for node in grid.get_node_ids()])
        for node, reply in enumerate(replies, 1):
            if reply.content["config"]["bytes"] != node.to_bytes(2, "big") * 512:
                raise ValueError(f"node {node} gave back other bytes")
