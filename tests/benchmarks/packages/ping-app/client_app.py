"""A client that gives its message back."""

from flwr.app import Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(msg, context):
    return Message(msg.content, reply_to=msg)
