"""The loops over time in C, built where there is a compiler, and the readme as a package index shows it."""

import os
import re
import tomllib
from pathlib import Path

import numpy
from setuptools import Extension, setup

HERE = Path(__file__).parent

# No -ffast-math: NaN and infinities behave as in NumPy. No -fwrapv, with which Python itself is built: GCC
# would take the sums of products by way of memory.
FLAGS = ["-std=c99", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-wrapv"]


def long_description():
    """Return README.md with absolute links: a package index has none of the files beside it."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = project["urls"]["Source"]
    text = (HERE / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^]]*\]\()(?![a-z]+:|#)", rf"\1{source}/raw/main/", text)
    return re.sub(r"((?<!!)\[[^][]*\]\()(?![a-z]+:|#)", rf"\1{source}/blob/main/", text)


def extension(name, headers, *flags):
    """Return what builds a module of minirnn.native, if there is a compiler."""
    return Extension(
        f"minirnn.native.{name}",
        [f"minirnn/native/{name}.c"],
        include_dirs=[numpy.get_include()],
        depends=[f"minirnn/native/{header}" for header in headers],
        extra_compile_args=[] if os.name == "nt" else [*FLAGS, *flags],
        optional=True,
    )


setup(
    long_description=long_description(),
    long_description_content_type="text/markdown",
    ext_modules=[
        extension(
            "_loops",
            ["arrays.h", "loops.h", "products.h", "types.h"],
            "-ffp-contract=fast",
            "-fopenmp-simd",
        ),
        extension("_training", ["arrays.h", "training.h"], "-ffp-contract=off"),
    ],
)
