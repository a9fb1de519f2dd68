"""One frozen loss L(θ), and the coordinates it is a function of."""
