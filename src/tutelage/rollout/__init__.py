"""From tasks to episodes."""
