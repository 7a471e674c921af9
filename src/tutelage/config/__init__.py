"""What a configuration may say: its schema, the TOML reader, and arguments from files."""
