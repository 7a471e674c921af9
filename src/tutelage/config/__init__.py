"""Configuration: the schema, the TOML reader, expressions, and calls with settings from files."""
