"""`python -m pendula` is the command line."""

import sys

from pendula.cli import main

sys.exit(main())
