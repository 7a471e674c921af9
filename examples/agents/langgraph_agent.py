"""langgraph: a graph of a model and its tools."""

from langchain_openai import ChatOpenAI
from langgraph.errors import GraphRecursionError
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


async def solve(base_url, api_key, task):
    model = ChatOpenAI(model="student", base_url=base_url, api_key=api_key).bind_tools([double])
    graph = StateGraph(MessagesState).add_node("tools", ToolNode([double]))
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "model").add_conditional_edges("model", tools_condition)
    agent = graph.add_edge("tools", "model").compile()
    talk = {"messages": [{"role": "user", "content": f"What is 2 times {task.seed}?"}]}
    try:
        result = await agent.ainvoke(talk, {"recursion_limit": 9})
    except GraphRecursionError:  # the model led it astray, which earns nothing
        return 0.0
    return float(str(2 * task.seed) in str(result["messages"][-1].content))
