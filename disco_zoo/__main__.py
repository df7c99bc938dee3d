"""`python -m disco_zoo ...`: the command line, also under launchers that start a module."""

from __future__ import annotations

import sys

from disco_zoo.cli import main

if __name__ == "__main__":
    sys.exit(main())
