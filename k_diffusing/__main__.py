"""`python -m k_diffusing` is the command `k-diffusing`."""

import sys

from k_diffusing.cli import main

if __name__ == "__main__":
    sys.exit(main())
