"""From observations to token ids: contexts, chat templates, the answer format."""
