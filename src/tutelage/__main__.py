"""`python -m tutelage` is the command line."""

from tutelage.cli.main import main

raise SystemExit(main())
