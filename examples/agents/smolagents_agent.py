"""smolagents: an agent that calls tools, two steps at most."""

from smolagents import LogLevel, OpenAIServerModel, ToolCallingAgent, tool


@tool
def double(number: int) -> int:
    """Twice a number.

    Args:
        number: what is doubled
    """
    return 2 * number


def solve(base_url, api_key, task):
    model = OpenAIServerModel("student", api_base=base_url, api_key=api_key)
    agent = ToolCallingAgent([double], model, max_steps=2, verbosity_level=LogLevel.OFF)
    answer = agent.run(f"What is 2 times {task.seed}?")
    return float(str(2 * task.seed) in str(answer))
