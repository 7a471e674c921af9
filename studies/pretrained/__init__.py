"""Real pretrained weights on the household tasks: the runs' files, and the page's table and curve."""
