"""Six suites of environments, which register through the entry point `tutelage.suites`."""
