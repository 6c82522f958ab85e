"""The recurrences on the GPU: CUDA kernels, and what launches them.

:mod:`.rnn`, :mod:`.lstm` and :mod:`.gru` are pairs like those of :mod:`minirnn.functional`, for arrays of
CuPy's; the equations stand there. Around the loop over time they are the same few matrix products. The
loop itself is

- for float32 and sizes that fit, one launch of a *persistent kernel*, which runs all steps of a packed
  batch, in both directions if there are two, with the recurrent matrix in registers;
- for all others, float64 among them, one product and one fused elementwise kernel a step and direction
  (``steps.cu``). Other dtypes are refused: a kernel takes an address for what it expects there.

So these pairs begin with ``forward_together`` and ``backward_together``, which take a list with the arguments
of each direction; forward, backward and step are those of one pass (:func:`.run.of_one`). The reverse
direction is a pass like the other, over rows that were reversed beforehand, as on the CPU. :mod:`.launch`
compiles the kernels and chooses the shapes of their launches; :mod:`.run` runs them over arrays.
:func:`minirnn.pairs.pair_for` picks these pairs; nothing here is imported before an array on the GPU asks.
"""
