"""The updates of a round side by side: what aggregators other than a mean compute with."""
