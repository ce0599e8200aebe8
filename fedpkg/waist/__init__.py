"""The interface between the controller and the executors that run its tasks: plain data, and the protocol itself."""
