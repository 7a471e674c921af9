"""A small MCP server for tests: a notebook that lives as long as the server does, and sums."""

import os
import sys
import time

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("notebook", instructions="Keep notes.")
NOTES: dict[str, str] = {}


@server.tool()
def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


@server.tool()
def note(key: str, value: str) -> str:
    """Write a note."""
    NOTES[key] = value
    return f"noted {key}"


@server.tool()
def look(key: str) -> str:
    """Read a note."""
    if key not in NOTES:
        raise ToolError(f"there is no note {key}")
    return NOTES[key]


@server.tool()
def leave(code: int) -> str:
    """End the server."""
    os._exit(code)


@server.tool()
def wait(seconds: float) -> str:
    """Answer late."""
    time.sleep(seconds)
    return "late"


if __name__ == "__main__":
    server.run(sys.argv[1] if len(sys.argv) > 1 else "stdio")  # type: ignore[call-overload]
