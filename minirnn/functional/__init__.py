"""Pure forward and backward pairs, one piece of mathematics a file.

``forward(x, ..., save=True)`` returns the result and a NamedTuple of what ``backward(ctx, dy)`` needs, or
``None`` with ``save=False``. The recurrences write where they are told: forward fills the states at all
steps and returns the NamedTuple alone; backward turns the gradients of the last states into those of
the initial ones, adds to the weights', and returns that of the input. Nothing here owns a parameter or
checks an argument; the modules do.
"""
