"""The methods of this library on one household panel: one budget, one warm start, several seeds."""
