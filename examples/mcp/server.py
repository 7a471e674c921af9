"""An MCP server with two tools: a notebook that lives as long as the server does."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("notebook", instructions="You keep a notebook of a shop's stock.")
NOTES: dict[str, int] = {}


@server.tool()
def write(name: str, count: int) -> str:
    """Write down how many pieces of something there are."""
    NOTES[name] = count
    return f"{name}: {count}"


@server.tool()
def read() -> dict[str, int]:
    """Everything that was written down."""
    return NOTES


if __name__ == "__main__":
    server.run()
