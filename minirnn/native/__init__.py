"""In C, where that was built: the recurrences' loops and single steps, and what training has beside them.

All are like those of :mod:`minirnn.functional`, where the equations stand. :mod:`.rnn`, :mod:`.lstm` and
:mod:`.gru` call ``loops.h``, which has the same equations for a machine, once for a loop's step and a single
one, and the products before and after them (``products.h``); a projected state they leave to NumPy, and large
products to a BLAS that has several threads.
:mod:`.adam`, :mod:`.embedding`, :mod:`.indices`, :mod:`.linear`, :mod:`.loss`, :mod:`.norm` and :mod:`.order`
call ``training.h``: one pass where NumPy takes many, each of which costs a call.
:func:`minirnn.pairs.pair_for` picks them.
"""
