"""Comparisons of methods that anyone can repeat: each folder is one study."""
