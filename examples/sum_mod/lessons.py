"""What happens in a step of training: the plain lesson, and those for sums of any length.

The end of a sequence of 2 to 5 digits tells whether its sum was right, not whether the state is one that
can be counted on from. Three things teach that: to be asked after each digit, to go on from the states in
which earlier sequences have ended, and to let states that mean the same be the same. Gradients reach back 5
steps at most. See docs/studies/extrapolation.md.
"""

import numpy as np

import minirnn


class AtTheEnd:
    """A step of training in which the network is asked at the end of independent sequences."""

    def __init__(self, model, criterion, args):
        self.model, self.criterion = model, criterion
        self.carried = Carried()  # nothing, ever

    def __call__(self, step, tokens, sums):
        """Add the gradients; return the loss, the logits and the sums."""
        logits, ctx = self.model.forward(tokens)
        loss, ctx_loss = self.criterion.forward(logits, sums)
        self.model.backward(ctx, self.criterion.backward(ctx_loss))
        return loss, logits, sums


class AfterEach:
    """A step of training in which the network is asked after each digit.

    With ``args.carry`` sequences go on, after a quarter of the steps, from the states in which those of the
    last batch have ended: truncated BPTT. With ``args.gather`` > 0 states after the same sum and digit are
    drawn together.
    """

    def __init__(self, model, criterion, args):
        self.model, self.criterion, self.args = model, criterion, args
        self.carried = Carried()

    def __call__(self, step, tokens, sums):
        """Add the gradients; return the loss, the logits at the end and the sums that are right there."""
        args, state, before = self.args, None, 0
        start = args.total_steps // 4
        if args.carry and step > start:
            # A generator of its own for every step: nothing more to keep for a run that is resumed.
            own = np.random.default_rng((args.seed, step))
            state, before = self.carried.into(own, len(sums))
        answers = sums_so_far(tokens, before, args.max_number)
        logits, ctx = self.model.forward(tokens, state, each=True)
        # Sequences have a least length, and nothing shorter is asked for.
        asked = slice(len(sums) * (args.min_seq_len - 1), None)
        xp = minirnn.get_array_module(logits.data)
        loss, ctx_l = self.criterion.forward(logits.data[asked], answers.data[asked])
        dlogits, doutput = xp.zeros_like(logits.data), xp.zeros_like(ctx.output.data)
        dlogits[asked] = self.criterion.backward(ctx_l)
        if args.gather:
            meanings = answers.data * (args.max_number + 1) + tokens.data
            _, apart = scattered(
                ctx.output.data[asked], meanings[asked], (args.max_number + 1) ** 2
            )
            # Little at first: what is to be gathered must have come to mean something.
            doutput[asked] = args.gather * min(1.0, step / max(1, start)) * apart
        self.model.backward(ctx, logits._replace(data=dlogits), ctx.output._replace(data=doutput))
        at_end, sums = minirnn.last_step(logits), minirnn.last_step(answers)
        self.carried.out_of(ctx.state, at_end, sums)
        return loss, at_end, sums


class Carried:
    """The states in which a batch's sequences end, for the next batch's to go on from.

    This is truncated BPTT with pieces of 2 to 5 digits: a state enters as a constant, and the network meets
    the states in which long sequences arrive. A sequence begins anew with the probability `anew`, and also
    if the last answer was wrong: such a state has lost the sum, and to ask it for the sum teaches noise.
    """

    def __init__(self, anew=0.3):
        self.anew = anew
        self.states, self.sums, self.right = [], None, None

    def into(self, rng, batch_size):
        """Return the state and the sum from which each sequence of a batch goes on; None and 0 at first."""
        if not self.states:
            return None, 0
        xp = minirnn.get_array_module(self.sums)
        source = xp.asarray(rng.permutation(batch_size))  # batches are in the order of length
        on = self.right[source] & xp.asarray(rng.random(batch_size) >= self.anew)
        states = tuple(s[:, source] * on[:, None] for s in self.states)
        return (states if len(states) > 1 else states[0]), self.sums[source] * on

    def out_of(self, state, logits, sums):
        """Keep where a batch has ended."""
        self.states = list(state) if isinstance(state, tuple) else [state]
        self.sums, self.right = sums, logits.argmax(1) == sums

    def state_dict(self):
        """Return what a run needs to go on."""
        return {"states": self.states, "sums": self.sums, "right": self.right}

    def load_state_dict(self, state):
        """Go on from there."""
        self.states, self.sums, self.right = state["states"], state["sums"], state["right"]


def sums_so_far(tokens, before=0, max_number=9):
    """Return, packed as the digits are, their sums mod ``max_number + 1`` after each, on top of `before`."""
    digits, lengths = minirnn.pad_packed_sequence(tokens)
    return minirnn.pack_padded_sequence((digits.cumsum(0) + before) % (max_number + 1), lengths)


def scattered(states, meanings, count):
    """Return how far states lie from the mean of those with the same meaning, and the gradient of that.

    `states` (N, H), `meanings` (N,) from 0 to `count` - 1; the mean square distance. The means depend on the
    states too, but their share in the gradient is zero, as distances from a mean add up to nothing.
    """
    xp = minirnn.get_array_module(states)
    same = (meanings == xp.arange(count)[:, None]).astype(states.dtype)
    means = same @ states / xp.maximum(same.sum(1), 1)[:, None]
    off = states - means[meanings]
    return (off * off).sum() / len(states), 2 / len(states) * off
