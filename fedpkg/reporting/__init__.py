"""What became of a session, for people: a report of one page, and a folder with everything that is on record."""
