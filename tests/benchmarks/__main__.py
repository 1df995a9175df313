"""`python -m tests.benchmarks`, from the root of the checkout."""

import sys

from tests.benchmarks.run import main

sys.exit(main())
