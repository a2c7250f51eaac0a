"""`python -m mggtalk_core` is `mggtalk`."""

from .cli import main

raise SystemExit(main())
