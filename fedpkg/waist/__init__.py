"""What crosses the seam between the controller and whoever runs its tasks: plain data, and the protocol itself."""
