"""Command line for the REST API: python -m training.client --help"""

import sys

from training.client.commands import main

if __name__ == "__main__":
    sys.exit(main())
