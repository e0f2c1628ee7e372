"""Lets `python -m codeweft` be the same program as `codeweft`."""

import sys

from codeweft.cli import main

sys.exit(main())
