"""What Scaleout's packages import besides helpers."""
