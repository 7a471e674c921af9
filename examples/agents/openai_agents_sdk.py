"""openai-agents: an agent with a tool, over chat completions."""

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from agents.exceptions import AgentsException
from openai import AsyncOpenAI

set_tracing_disabled(True)


@function_tool
def double(number: int) -> int:
    return 2 * number


async def solve(base_url, api_key, task):
    client = AsyncOpenAI(base_url=base_url, api_key=api_key)
    model = OpenAIChatCompletionsModel(model="student", openai_client=client)
    agent = Agent(name="doubler", model=model, tools=[double])
    try:
        result = await Runner.run(agent, f"What is 2 times {task.seed}?", max_turns=4)
    except AgentsException:  # the model led it astray, which earns nothing
        return 0.0
    return float(str(2 * task.seed) in result.final_output)
