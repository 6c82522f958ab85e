"""Draw the figures of packed batches: ``python docs/figures/packed.py`` writes the SVG files beside it."""

from pathlib import Path

# Sequences by length; colours that the colour-blind tell apart (Okabe and Ito).
SEQUENCES = {"abcd": "#9ecae9", "ef": "#ffd08a", "g": "#9fdcc4"}
SIZE, GREY = 40, "#eeeeee"
LONGEST = max(map(len, SEQUENCES))
BATCH_SIZES = [sum(len(s) > t for s in SEQUENCES) for t in range(LONGEST)]


def box(column, row, text, colour, left=0, top=0):
    """Return a square with a letter in it, in a grid that starts at (left, top)."""
    x, y = left + column * SIZE, top + row * SIZE
    return (
        f'<rect x="{x}" y="{y}" width="{SIZE}" height="{SIZE}" fill="{colour}" stroke="#444"/>'
        + label(x + SIZE / 2, y + SIZE / 2 + 6, text)
    )


def label(x, y, text, size=18, anchor="middle", colour="#222"):
    """Return a line of text."""
    style = f'font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{text}</text>'


def arrow(x1, y1, x2, y2):
    """Return an arrow from one point to another."""
    style = 'stroke="#444" stroke-width="1.6" fill="none" marker-end="url(#tip)"'
    return f'<path d="M {x1:g} {y1:g} L {x2:g} {y2:g}" {style}/>'


def picture(width, height, title, *parts):
    """Return an SVG file of the parts."""
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M 0 0 L 8 4 L 0 8 z" fill="#444"/></marker>'
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" role="img" aria-label="{title}">'
    )
    white = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([head, f"<defs>{tip}</defs>", white, *parts, "</svg>"]) + "\n"


def rows():
    """Yield each packed row: its step, its number within the step, its letter and its colour."""
    for t, running in enumerate(BATCH_SIZES):
        for i, (sequence, colour) in zip(range(running), SEQUENCES.items(), strict=False):
            yield t, i, sequence[t], colour


def packing():
    """Three sequences as a padded batch, and as packed rows with their batch sizes."""
    parts = [label(30, 28, "padded: 5 of 12 are padding", 15, "start")]
    for i, (sequence, colour) in enumerate(SEQUENCES.items()):
        for t in range(LONGEST):
            inside = t < len(sequence)
            text, fill = (sequence[t], colour) if inside else ("0", GREY)
            parts.append(box(t, i, text, fill, 30, 44))
    parts += [label(30 + SIZE * (t + 0.5), 186, f"t = {t}", 13) for t in range(LONGEST)]
    parts += [arrow(212, 104, 262, 104), label(237, 92, "pack", 14)]
    parts.append(label(290, 28, "packed: the 7 rows there are, step by step", 15, "start"))
    left = 290
    for row, (t, i, letter, colour) in enumerate(rows()):
        parts.append(box(row, 0, letter, colour, left, 84))
        if i == 0:
            width = BATCH_SIZES[t] * SIZE
            x = left + row * SIZE
            line = f'<path d="M {x + 3} 132 v 8 h {width - 6} v -8" stroke="#444" fill="none"/>'
            parts += [line, label(x + width / 2, 160, str(BATCH_SIZES[t]), 16)]
    parts.append(label(left, 186, "batch_sizes: how many sequences run at step t", 13, "start"))
    return picture(660, 204, "A padded batch and the same batch packed", *parts)


def recurrence():
    """How the states shrink on the way forward, and where gradients of last states join on the way back."""
    parts = [label(20, 30, "forward: step t works on the first batch_sizes[t] states", 15, "start")]
    parts.append(label(20, 222, "backward: dh_n waits where its sequence ends", 15, "start"))
    for top, name in ((50, "h"), (242, "dh")):
        for t, i, _, colour in rows():
            parts.append(box(0, i, f"{name}{t}", colour, 40 + t * 130, top))
        for t in range(1, LONGEST):
            for i in range(BATCH_SIZES[t]):
                y, x = top + (i + 0.5) * SIZE, 40 + t * 130
                ends = (x - 130 + SIZE + 4, x - 4)
                parts.append(
                    arrow(*((ends[0], y, ends[1], y) if name == "h" else (ends[1], y, ends[0], y)))
                )
        for i, sequence in enumerate(SEQUENCES):
            x, y = 40 + (len(sequence) - 1) * 130 + SIZE, top + (i + 0.5) * SIZE
            if name == "h":
                parts += [
                    arrow(x + 4, y, x + 34, y),
                    label(x + 40, y + 5, f"h_n[{i}]", 14, "start"),
                ]
            else:
                parts += [
                    label(x + 40, y + 5, f"dh_n[{i}]", 14, "start"),
                    arrow(x + 36, y, x + 4, y),
                ]
    return picture(600, 386, "The loop over a packed batch, forward and backward", *parts)


FIGURES = {"packing.svg": packing, "recurrence.svg": recurrence}

if __name__ == "__main__":
    for name, draw in FIGURES.items():
        (Path(__file__).parent / name).write_text(draw(), encoding="utf-8")
