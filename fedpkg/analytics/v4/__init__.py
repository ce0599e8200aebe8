"""The contract of version 4: functions with decorators, which send JSON."""
