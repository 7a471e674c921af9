"""From episodes to one update of the weights."""
