"""Backpropagation through time around a recurrence: pure pairs over packed rows.

A recurrence (:mod:`minirnn.functional.rnn` and its siblings) is one cell's mathematics. Around it stand

- :mod:`.passes`, one layer in one direction, and :mod:`.checkpoints`, the same by segments of the steps;
- :mod:`.directions`, what goes into both directions and what comes out of them;
- :mod:`.execution`, how a layer's passes run: in turn, in threads, in parts of the batch, in one launch;
- :mod:`.stack`, layers on top of each other: the two loops that all of it is for;
- :mod:`.traces`, what happened at every step.

Nothing here owns a parameter, checks an argument, draws a random number or knows in which form the input
came; the modules do.
"""
