"""What an algorithm is: views, loss terms, signals, and the binding of all of them to one step."""
