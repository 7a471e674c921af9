"""`tutelage serve`: load a model and serve it over HTTP."""

from ipaddress import ip_address

from tutelage.config.schema import PolicySection, RolloutSection, UpdateSection
from tutelage.envs.addresses import key_in
from tutelage.errors import ConfigError
from tutelage.policies.server.serve import Server
from tutelage.runs import models

LAST_PORT = 65535


def server_of(
    section: PolicySection, *, name: str, host: str, port: int, key: str, reload: bool
) -> Server:
    """A server of a model; `key` is the environment variable with the key that clients must send."""
    secret = key_in(key, where="--key")
    if not 0 <= port <= LAST_PORT:
        raise ConfigError(f"--port must be from 0 (any that is free) to {LAST_PORT}, got {port}")
    if not secret and not _loopback(host):
        raise ConfigError(
            f"--host {host} lets other machines in, so a key is needed: set an environment variable "
            "to one and name it with --key"
        )
    models.quiet()
    policy = models.load_policy(
        section,
        where="model",
        tokens=UpdateSection().max_tokens_per_pass,
        rows=RolloutSection().slots,
    )
    policy.model.requires_grad_(False)
    return Server(policy, name=name, host=host, port=port, key=secret, reload=reload)


def _loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
