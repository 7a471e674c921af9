"""`tutelage serve`: load a model and serve it over HTTP."""

import os

from tutelage.config.schema import PolicySection, RolloutSection, UpdateSection
from tutelage.errors import ConfigError
from tutelage.policies.server.serve import Server
from tutelage.runs import models


def server_of(
    section: PolicySection, *, name: str, host: str, port: int, key: str, reload: bool
) -> Server:
    """A server of a model; `key` is the environment variable with the key that clients must send."""
    if key and not os.environ.get(key):
        raise ConfigError(f"--key names the environment variable {key}, which is not set")
    models.quiet()
    policy = models.load_policy(
        section,
        where="model",
        tokens=UpdateSection().max_tokens_per_pass,
        rows=RolloutSection().concurrency,
    )
    policy.model.requires_grad_(False)
    return Server(
        policy, name=name, host=host, port=port, key=os.environ.get(key, ""), reload=reload
    )
