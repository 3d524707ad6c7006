"""`python -m unleak`."""

import sys

from unleak.cli import main

sys.exit(main())
