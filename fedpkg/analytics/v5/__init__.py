"""The contract of version 5: functions that are declared as central or federated, and send JSON."""
