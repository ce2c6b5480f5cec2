"""python -m shared.diff A B: see cli.py."""

import sys

from shared.diff.cli import main

if __name__ == "__main__":
    sys.exit(main())
