"""The pictures of the benchmark; needs matplotlib, the extra ``plot``."""

from minirnn.atomic import atomic_write

COLOURS = {"RNN": "tab:blue", "GRU": "tab:green", "LSTM": "tab:red"}


def _figure(columns):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(1, columns, figsize=(4.2 * columns, 4.2), layout="constrained")


def _powers(axis, values):
    """Put a logarithmic axis's ticks on exactly the values measured."""
    axis.set_ticks(values, [f"{v:,}" for v in values])
    axis.set_ticks([], minor=True)


def ratios(floors, path):
    """Draw the ratio against H.

    `floors` maps (cell, form) to a list of (H, result, floor).
    """
    figure, axes = _figure(3)
    forms = {"dense": ("o-", "_", 1.0), "packed": ("s--", "x", 0.55)}
    top = max(max(r.high, floor) for points in floors.values() for _, r, floor in points)
    for axis, (cell, colour) in zip(axes, COLOURS.items(), strict=True):
        for form, (style, mark, alpha) in forms.items():
            H, results, floor = zip(*floors[cell, form], strict=True)
            below = [r.ratio - r.low for r in results]
            above = [r.high - r.ratio for r in results]
            middle = [r.ratio for r in results]
            axis.errorbar(
                H, middle, (below, above), fmt=style, color=colour, alpha=alpha, ms=5, capsize=2
            )
            axis.plot(H, floor, mark, color="black", markersize=9)
        axis.axhline(1, color="gray", linewidth=1)
        axis.set(title=cell, xlabel="H (hidden size)", xscale="log", yscale="log")
        axis.set_ylim(0.5, top * 1.2)
        _powers(axis.xaxis, H)
        _powers(axis.yaxis, [0.5, 1, 2, 5, 10])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("torch's time / minirnn's")
    figure.suptitle("Forward + backward: how many times faster than torch (median and quartiles)")
    for form, (style, mark, alpha) in forms.items():
        axes[0].plot([], [], style, color="gray", alpha=alpha, label=form)
        axes[0].plot([], [], mark, color="black", markersize=9, label=f"{form}, floor")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    with atomic_write(path) as file:
        figure.savefig(file, dpi=120, format="png")


def scaling(sweeps, path):
    """Draw time against T, B and H.

    `sweeps` maps the name of what varies to the fixed sizes and to a list of (cell, value, result).
    """
    figure, axes = _figure(len(sweeps))
    for axis, (name, (fixed, points)) in zip(axes, sweeps.items(), strict=True):
        for cell, colour in COLOURS.items():
            value, results = zip(*[(v, r) for c, v, r in points if c == cell], strict=True)
            axis.plot(value, [r.ours * 1e3 for r in results], "o-", color=colour)
            axis.plot(value, [r.theirs * 1e3 for r in results], "x--", color=colour, alpha=0.6)
        axis.set(title=f"against {name}, at {fixed}", xlabel=name, xscale="log", yscale="log")
        _powers(axis.xaxis, value)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
        axis.grid(alpha=0.3, which="both", axis="y")
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_ylabel("forward + backward, ms")
    for cell, colour in COLOURS.items():
        axes[0].plot([], [], "o-", color=colour, label=f"minirnn {cell}")
        axes[0].plot([], [], "x--", color=colour, alpha=0.6, label=f"torch {cell}")
    figure.legend(loc="outside lower center", ncols=6, frameon=False)
    with atomic_write(path) as file:
        figure.savefig(file, dpi=120, format="png")
