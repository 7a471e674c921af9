"""A game of short turns, on which real weights learn within minutes on a CPU."""
