"""pydantic-ai: an agent with a tool."""

from pydantic_ai import Agent
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


def double(number: int) -> int:
    return 2 * number


async def solve(base_url, api_key, task):
    model = OpenAIChatModel("student", provider=OpenAIProvider(base_url=base_url, api_key=api_key))
    agent = Agent(model, tools=[double])
    try:
        result = await agent.run(f"What is 2 times {task.seed}?")
    except AgentRunError:  # the model led it astray, which earns nothing
        return 0.0
    return float(str(2 * task.seed) in result.output)
