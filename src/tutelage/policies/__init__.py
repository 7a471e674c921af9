"""Models behind one protocol: they act, they are scored, and one of them learns."""
