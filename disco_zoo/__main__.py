"""`python -m disco_zoo ...`: the command line, also under launchers that start a module."""

from __future__ import annotations

from disco_zoo.cli import entry_point

if __name__ == "__main__":
    entry_point()
