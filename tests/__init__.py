"""Set before torch is loaded: two test runs at once else spin against each other (see `cli.app.main`)."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")
