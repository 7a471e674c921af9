"""The six benchmark suites that come with tutelage."""
