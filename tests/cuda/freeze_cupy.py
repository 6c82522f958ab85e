"""Write down what names CuPy has: python tests/cuda/freeze_cupy.py > tests/cuda/cupy.json

For `strict_cupy.py`. Needs the CuPy wheel, but no GPU and no driver.
"""

import inspect
import json
import sys


def parameters(function):
    """Return a function's parameters, if they can be told: "=k" is keyword-only, "*a" takes all."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    mark = {inspect.Parameter.KEYWORD_ONLY: "=", inspect.Parameter.VAR_POSITIONAL: "*"}
    return [mark.get(p.kind, "") + p.name for p in found]


def main():
    import cupy

    names = {}
    for name in sorted(dir(cupy)):
        value = getattr(cupy, name)
        if name.startswith("_") or inspect.ismodule(value):
            continue
        names[name] = (
            "ufunc"
            if isinstance(value, cupy.ufunc)
            else parameters(value)
            if callable(value)
            else None
        )
    methods = [name for name in dir(cupy.ndarray) if not name.startswith("_")]
    # What there is no public name for: the kinds of products, and the function that chooses one.
    linalg = cupy._core._routines_linalg
    kinds = {
        name: getattr(linalg, name) for name in dir(linalg) if name.startswith("COMPUTE_TYPE_")
    }
    kinds["set_compute_type"] = linalg.set_compute_type.__doc__
    frozen = {"version": cupy.__version__, "names": names, "ndarray": methods, "linalg": kinds}
    rows = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in names.items())
    frozen.pop("names")
    sys.stdout.write(json.dumps(frozen)[:-1] + ',\n "names": {\n  ' + rows + "\n }\n}\n")


if __name__ == "__main__":
    main()
