#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox >= 2025.2.9"]
# ///
"""What is done again and again: ``nox`` runs tests and lint, ``nox -l`` lists all."""

import nox

nox.needs_version = ">= 2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"


@nox.session
def tests(session):
    """Run the tests, with torch; arguments go to pytest."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session):
    """Check style and types."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(default=False)
def docs(session):
    """Build the site, strictly: a link within it that leads nowhere fails."""
    session.install("-e", ".[docs]")
    session.run("docs/build", external=True)


@nox.session(default=False)
def links(session):
    """Ask every address outside that the site and the readmes link to; needs the network."""
    session.install("-e", ".[docs]")
    session.run("npm", "install", "--prefix", "docs", "--no-package-lock", external=True)
    session.run("sphinx-build", "-E", "-q", "-b", "linkcheck", "docs", "docs/_build/linkcheck")


@nox.session(default=False)
def bench(session):
    """Compare speeds with torch; arguments go to benchmarks/speed.py, such as --quick."""
    session.install("-e", ".[test]")
    session.run("python", "benchmarks/speed.py", *session.posargs)


@nox.session(default=False)
def coverage(session):
    """Run the tests and refuse less than the floor in lines and branches, of pyproject.toml."""
    session.install("-e", ".[test,coverage]")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("python", ".ci/coverage")


@nox.session(default=False)
def packages(session):
    """Build what people install, and try it."""
    session.install(".[package]")
    session.run(".ci/packages", external=True)


@nox.session(default=False)
def extras(session):
    """Try every extra in an environment of its own; arguments choose among them."""
    session.run(".ci/extras", *session.posargs, external=True)


@nox.session(default=False)
def review(session):
    """Ask Scientific Python's checklist; what is left out says why in pyproject.toml."""
    session.install(".[package]")
    session.run("repo-review", ".")


if __name__ == "__main__":
    nox.main()
