"""A local web page that shows runs: curves, episodes, tokens coloured by what the loss did."""
