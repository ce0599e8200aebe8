"""Who is asked in a round."""
