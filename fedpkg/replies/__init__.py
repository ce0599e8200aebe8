"""What clients send back: checked against what was asked, where a task runs and where its reply arrives."""
