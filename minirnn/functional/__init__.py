"""Pure forward and backward pairs, one piece of mathematics a file.

``forward(x, ..., save=True)`` returns the result and a NamedTuple of what ``backward(ctx, dy)`` needs, or
``None`` with ``save=False``. The recurrences write where they are told; :mod:`.recurrence` has their
contract. Nothing here owns a parameter or checks an argument; the modules do.
"""
