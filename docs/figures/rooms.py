"""Draw the rooms and a batch's way: ``python docs/figures/rooms.py`` writes the SVG files beside it."""

from pathlib import Path

from packed import GREY, arrow, label, picture

TOP, OWN, FORM, LOOP, MATHS, GROUND = "#f3d9e8", "#ffd08a", "#ffe7b8", "#9ecae9", "#9fdcc4", GREY
# What is drawn of each floor: files with their single idea, from left to right.
FLOORS = [
    (TOP, [("truncated.py", ""), ("diagnostics/", ""), ("export.py", ""), ("parallel.py", "")]),
    (OWN, [("recurrent.py", "RNN, LSTM, GRU"), ("cells.py", "one step of each")]),
    (
        FORM,
        [
            ("forms.py", "rows of any input, and back"),
            ("weights.py", "names, shapes, first values"),
            ("pairs.py", "which pair computes here"),
        ],
    ),
    (
        LOOP,
        [
            ("stack.py", "layers"),
            ("directions.py", "split and join"),
            ("execution.py", "how passes run"),
            ("checkpoints.py", "by windows"),
            ("passes.py", "one direction"),
        ],
    ),
    (
        MATHS,
        [
            ("functional/", "the equations of each cell"),
            ("native/", "their loops in C"),
            ("cuda/", "their CUDA kernels"),
        ],
    ),
    (
        GROUND,
        [
            ("layout.py", "where a step lies in the rows"),
            ("checks.py", "what bad input gets"),
            ("backend.py", "NumPy or CuPy"),
        ],
    ),
]
SAID = (
    "on top",
    "own the weights",
    "lead in and out",
    "bptt/: the loops",
    "the mathematics",
    "the ground",
)
WIDTH, LEFT, HEIGHT, GAP = 760, 10, 52, 28


def room(x, y, width, height, colour, name, idea=""):
    """Return a box with a name, and its idea below it."""
    box = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" '
    middle = y + height / 2
    parts = [f'{box}fill="{colour}" stroke="#444"/>']
    parts.append(label(x + width / 2, middle - 2 if idea else middle + 5, name, 13))
    if idea:
        parts.append(label(x + width / 2, middle + 15, idea, 11, colour="#444"))
    return "".join(parts)


def rooms():
    """Draw the floors of the recurrent core: what stands lower never imports what stands higher."""
    parts, aside = [], 150
    for floor, ((colour, files), said) in enumerate(zip(FLOORS, SAID, strict=True)):
        y = 12 + floor * (HEIGHT + GAP)
        parts.append(label(LEFT, y + HEIGHT / 2 + 4, said, 12, "start", "#555"))
        width = (WIDTH - LEFT - aside - 8 * (len(files) - 1)) / len(files)
        for k, (name, idea) in enumerate(files):
            parts.append(room(aside + k * (width + 8), y, width, HEIGHT, colour, name, idea))
        if floor:
            middle = aside + (WIDTH - LEFT - aside) / 2
            parts.append(arrow(middle, y - GAP + 3, middle, y - 3))
    return picture(
        WIDTH, 12 + len(FLOORS) * (HEIGHT + GAP) - GAP + 12, "The rooms, from the top down", *parts
    )


# Of one layer, forward from left to right: what is done, and below it its adjoint.
WALK = [
    ("forms.py", "of, flat", "restore", FORM),
    ("stack.py", "mask", "mask", LOOP),
    ("directions.py", "split", "split_backward", LOOP),
    (None, None, None, None),
    ("directions.py", "join", "join_backward", LOOP),
    ("forms.py", "restore", "rows", FORM),
]


def walk():
    """Draw a batch through a stacked bidirectional layer: each step forward has its adjoint below."""
    parts, width, step = [], 104, 126
    parts.append(label(10, 24, "forward", 15, "start"))
    parts.append(label(10, 214, "backward", 15, "start"))
    for k, (where, there, back, colour) in enumerate(WALK):
        x = 10 + k * step
        if where is None:
            for n, name in enumerate(("pass", "pass, reversed")):
                parts.append(room(x, 50 + n * 66, width, 46, MATHS, name, "h_0 led to h_n"))
                parts.append(room(x, 240 + n * 66, width, 46, MATHS, name, "dh_n led to dh_0"))
            parts.append(label(x + width / 2, 182, "execution.py", 12, colour="#444"))
        else:
            parts.append(room(x, 84, width, 46, colour, there, where))
            parts.append(room(x, 274, width, 46, colour, back, where))
    between = step - width
    for k in range(len(WALK) - 1):
        x = 10 + k * step + width + 2
        ends = (x, x + between - 4)
        for d in (-34, 32) if k in (2, 3) else (0,):
            inner, outer = (0, d) if k == 2 else (d, 0)
            parts.append(arrow(ends[0], 107 + inner, ends[1], 107 + outer))
            parts.append(arrow(ends[1], 297 + outer, ends[0], 297 + inner))
    x, right = 10 + step - 8, 10 + 4 * step + width + 8
    for y in (40, 230):
        parts.append(
            f'<path d="M {x} {y} H {right} V {y + 124} H {x} Z" fill="none" stroke="#888" '
            'stroke-dasharray="5 4"/>'
        )
    parts.append(label(right - 4, 36, "for each layer, first to last", 12, "end", "#555"))
    parts.append(label(right - 4, 226, "for each layer, last to first", 12, "end", "#555"))
    parts.append(label(62, 150, "input", 13))
    parts.append(label(62, 340, "dinput", 13))
    parts.append(label(10 + 5 * step + width / 2, 150, "output", 13))
    parts.append(label(10 + 5 * step + width / 2, 340, "doutput", 13))
    return picture(
        770, 366, "A batch through a stacked bidirectional layer, forward and back", *parts
    )


FIGURES = {"rooms.svg": rooms, "walk.svg": walk}

if __name__ == "__main__":
    for name, draw in FIGURES.items():
        (Path(__file__).parent / name).write_text(draw(), encoding="utf-8")
