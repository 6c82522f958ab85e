r"""Forecasting with an encoder and a decoder
=========================================

One network reads a week of hourly values, another says the next two days.

::

    python examples/forecast.py                     # a series drawn for the purpose
    python examples/forecast.py --csv load.csv      # yours: one value an hour, a line each

The encoder's last state is the decoder's first. On the way back that is one line as well: what
``decoder.backward`` returns as ``dh_0`` goes into ``encoder.backward`` as ``dh_n``. The decoder is told
what is known of the future, the hour and the weekday, and is judged beside the rule "as a week ago".
"""

import argparse
from pathlib import Path

import numpy as np

import minirnn
from minirnn.atomic import atomic_write

DAY, WEEK = 24, 168


class Forecaster(minirnn.Module):
    """A GRU that reads and a GRU that foretells."""

    def __init__(self, calendar, hidden_dim):
        self.encoder = minirnn.GRU(1 + calendar, hidden_dim)
        self.decoder = minirnn.GRU(calendar, hidden_dim)
        self.head = minirnn.Linear(hidden_dim, 1)

    def forward(self, x):
        """Return the future (T', B, 1) of a pair: past (T, B, 1 + calendar), calendar (T', B, calendar)."""
        past, future = x
        (_, state), ctx_e = self.encoder.forward(past)
        (output, _), ctx_d = self.decoder.forward(future, state)
        y, ctx_y = self.head.forward(output)
        return y, (ctx_e, ctx_d, ctx_y)

    def backward(self, ctx, dy):
        """Go back from the future into the past."""
        ctx_e, ctx_d, ctx_y = ctx
        _, dstate = self.decoder.backward(ctx_d, self.head.backward(ctx_y, dy))
        self.encoder.backward(ctx_e, None, dstate)  # nobody looked at its output


def drawn(rng, weeks=60):
    """Return a series with a rhythm of days and weeks, a slow drift and noise."""
    t = np.arange(weeks * WEEK)
    working = (t // DAY % 7) < 5
    day = np.sin(2 * np.pi * (t % DAY - 6) / DAY) * np.where(working, 1.0, 0.4)
    drift = np.cumsum(rng.standard_normal(len(t))) * 0.02
    return 10 + 3 * day + 1.5 * working + drift + 0.3 * rng.standard_normal(len(t))


def calendar(t):
    """Return what is known of every hour: where in the day and in the week it lies."""
    angles = 2 * np.pi * np.stack([t / DAY, t / WEEK, 2 * t / WEEK], axis=-1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


def cut(values, starts, past, future):
    """Return pasts, calendars and futures that begin at `starts`, time first, each past around zero.

    The last array has what was taken from each, its own mean.
    """
    before = starts + np.arange(past)[:, None]
    after = starts + past + np.arange(future)[:, None]
    mean = values[before].mean(0)
    x = np.concatenate([(values[before] - mean)[..., None], calendar(before)], axis=-1)
    y = (values[after] - mean)[..., None]
    return [a.astype(np.float32) for a in (x, calendar(after), y)] + [mean]


def rmse(a, b):
    """Return the root of the mean squared error."""
    return float(np.sqrt(np.mean((a - b) ** 2)))


def draw(values, start, forecast, args):
    """Draw the end of the past, the forecast and what came."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        print("no picture: pip install 'minirnn[plot]'")
        return
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    known = np.arange(-args.past, 0)
    after = np.arange(args.future)
    now = start + args.past
    axes.plot(known, values[now + known], color="#666", label="read")
    axes.plot(after, values[now + after], color="#666", linestyle=":", label="what came")
    axes.plot(after, forecast, color="#d55e00", label="foretold")
    axes.axvline(0, color="#ccc")
    axes.set(title="A week is read, two days are foretold", xlabel="hours from now", ylabel="value")
    axes.legend(loc="upper left")
    with atomic_write(args.picture) as file:
        figure.savefig(file, dpi=130, format=args.picture.suffix[1:] or "png")
    print(f"picture in {args.picture}")


def main(argv=None):
    """Train on the first four fifths of the series, and foretell in the last."""
    p = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--csv", type=Path, help="one value an hour, a line each")
    p.add_argument("--past", type=int, default=WEEK, help="hours that are read")
    p.add_argument("--future", type=int, default=2 * DAY, help="hours that are foretold")
    p.add_argument("--steps", type=int, default=600)
    p.add_argument("--batch_size", type=int, default=32)
    p.add_argument("--hidden_dim", type=int, default=48)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--picture", type=Path, default=Path("forecast.png"))
    args = p.parse_args(argv)
    rng = np.random.default_rng(args.seed)
    values = drawn(rng) if args.csv is None else np.loadtxt(args.csv, ndmin=1)
    split, whole = len(values) * 4 // 5, args.past + args.future
    if len(values) - split < max(whole, WEEK + args.future):
        p.error(
            f"--csv: expected at least {5 * max(whole, WEEK + args.future)} values, got {len(values)}"
        )
    scale = values[:split].std()
    scaled = values / scale

    minirnn.manual_seed(args.seed)
    model = Forecaster(calendar(np.zeros(1)).shape[-1], args.hidden_dim)
    criterion, optimizer = minirnn.MSELoss(), minirnn.Adam(model.parameters(), 1e-2)
    scheduler = minirnn.CosineAnnealingLR(optimizer, args.steps, eta_min=1e-4)
    for step in range(1, args.steps + 1):
        starts = rng.integers(0, split - whole, args.batch_size)
        past, future, target, _ = cut(scaled, starts, args.past, args.future)
        y, ctx = model.forward((past, future))
        loss, ctx_loss = criterion.forward(y, target)
        optimizer.zero_grad()
        model.backward(ctx, criterion.backward(ctx_loss))
        minirnn.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % 100 == 0 or step == args.steps:
            print(f"step {step}: error {float(loss) ** 0.5 * scale:.3f}")

    starts = np.arange(split, len(values) - max(whole, WEEK + args.future) + 1, 7)
    past, future, target, mean = cut(scaled, starts, args.past, args.future)
    forecast = (model((past, future))[..., 0] + mean) * scale
    after = starts + args.past + np.arange(args.future)[:, None]
    weekly = rmse(values[after - WEEK * -(-args.future // WEEK)], values[after])
    print(f"error: {rmse(forecast, values[after]):.3f}, of the rule 'as a week ago' {weekly:.3f}")
    draw(values, starts[len(starts) // 2], forecast[:, len(starts) // 2], args)


if __name__ == "__main__":
    main()

# %%
# .. image:: /pictures/forecast.png
#    :alt: A week that is read, and two days that are foretold

# sphinx_gallery_thumbnail_path = "pictures/forecast.png"
