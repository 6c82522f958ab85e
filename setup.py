"""The loops over time in C: built where there is a compiler, left out where there is none."""

import os

from setuptools import Extension, setup

# No -ffast-math: NaN and infinities behave as in NumPy.
FLAGS = [
    "-std=c99",
    "-O3",
    "-ffp-contract=fast",
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
]

setup(
    ext_modules=[
        Extension(
            "minirnn.native._loops",
            ["minirnn/native/_loops.c"],
            depends=["minirnn/native/loops.h", "minirnn/native/types.h"],
            extra_compile_args=[] if os.name == "nt" else FLAGS,
            optional=True,
        )
    ]
)
