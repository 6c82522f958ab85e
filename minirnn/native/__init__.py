"""The recurrences' loops over time in C, where they were built, and the products before and after them.

:mod:`.rnn`, :mod:`.lstm` and :mod:`.gru` are pairs like those of :mod:`minirnn.functional`, where the
equations stand; ``loops.h`` has the same equations for a machine. What C lacks they leave to those: a
projected state. Large products they leave to a BLAS that has several threads.
:func:`minirnn.places.pair_for` picks them, for float32 and float64.
"""
