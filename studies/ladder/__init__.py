"""The ladder: small problems with a known optimum on which every method must learn."""
