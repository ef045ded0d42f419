"""``python -m avtune``: the command line, also under torchrun."""

import sys

from avtune.cli import main

if __name__ == "__main__":
    sys.exit(main())
