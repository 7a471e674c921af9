"""Chat templates with functions, in the manner of several model families, and a suite of sums."""

from collections.abc import Sequence
from typing import Any

from support.tiny_models import byte_tokenizer
from tutelage.policies.base import Completion, Request
from tutelage.prompts.chat_template import Chat, History
from tutelage.types import Observation, Task

ASK = "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CALL = (
    "{{ '\n<tool_call>\n' }}"
    "{{ {'name': c.function.name, 'arguments': c.function.arguments}|tojson + '\n</tool_call>' }}"
)
BLOCKS = (
    # functions in the system message, results of one answer together in one message of the user
    "{%- set first = messages[0].content if messages[0].role == 'system' else '' %}"
    "{%- if tools or first %}{{ '<|im_start|>system\n' + first }}"
    "{%- if tools %}{{ '\n\nFunctions:' }}{%- for t in tools %}{{ '\n' + t|tojson }}{%- endfor %}"
    "{%- endif %}{{ '<|im_end|>\n' }}{%- endif %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'user' %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}{{ '<|im_start|>assistant' }}"
    "{%- if m.content %}{{ '\n' + m.content }}{%- endif %}"
    "{%- for c in m.tool_calls or [] %}" + CALL + "{%- endfor %}{{ '<|im_end|>\n' }}"
    "{%- elif m.role == 'tool' %}"
    "{%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{%- endif %}"
    "{{ '\n<tool_response>\n' + m.content + '\n</tool_response>' }}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{%- endif %}"
    "{%- endif %}{%- endfor %}" + ASK
)
ONE_CALL = (
    # functions in the first message of the user, one call an answer, results as JSON
    "{%- set ns = namespace(tools=tools) %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'tool' %}{{ '<|im_start|>python\n' + m.content|tojson + '<|im_end|>' }}"
    "{%- else %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'user' and ns.tools %}"
    "{%- for t in ns.tools %}{{ t|tojson + '\n' }}{%- endfor %}{%- set ns.tools = none %}{%- endif %}"
    "{%- if m.tool_calls %}"
    "{%- if m.tool_calls|length > 1 %}{{ raise_exception('one call an answer') }}{%- endif %}"
    "{%- set f = m.tool_calls[0].function %}"
    "{{ '{\"name\": \"' + f.name + '\", \"parameters\": ' + f.arguments|tojson + '}' }}"
    "{%- else %}{{ m.content }}{%- endif %}{{ '<|im_end|>' }}{%- endif %}"
    "{%- endfor %}" + ASK
)
MARKED = (
    # tokens of their own around functions, calls and results
    "{%- if tools %}{{ '[TOOLS]' + tools|tojson + '[/TOOLS]' }}{%- endif %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'tool' %}{{ '[TOOL_RESULTS]' + m.content + '[/TOOL_RESULTS]' }}"
    "{%- elif m.tool_calls %}{{ '[TOOL_CALLS][' }}{%- for c in m.tool_calls %}"
    "{{ {'name': c.function.name, 'arguments': c.function.arguments}|tojson }}"
    "{%- if not loop.last %}{{ ', ' }}{%- endif %}{%- endfor %}{{ ']<|im_end|>' }}"
    "{%- elif m.role == 'assistant' %}{{ m.content + '<|im_end|>' }}"
    "{%- elif m.role == 'system' %}{{ m.content + '\n\n' }}"
    "{%- else %}{{ '[INST]' + m.content + '[/INST]' }}{%- endif %}{%- endfor %}"
)
MARKS = [
    "[TOOLS]",
    "[/TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[INST]",
    "[/INST]",
]
LATE = (
    # functions before the last message of the user: they move from turn to turn
    "{%- for m in messages %}{%- if loop.last and tools %}{{ tools|tojson + '\n' }}{%- endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}" + ASK
)
FAMILIES = {"blocks": BLOCKS, "one call": ONE_CALL, "marked": MARKED}


def tool_chat(template: str, *, history: History = "exact") -> Chat:
    tokenizer = byte_tokenizer(template)
    if template is MARKED:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *MARKS]})
    return Chat(tokenizer, history)


NUMBER = {"type": "integer"}
ADD: dict[str, Any] = {
    "name": "add",
    "description": "the sum of two numbers",
    "parameters": {
        "type": "object",
        "properties": {"a": NUMBER, "b": NUMBER},
        "required": ["a", "b"],
    },
}
SUBMIT: dict[str, Any] = {
    "name": "submit",
    "description": "hand the result in",
    "parameters": {
        "type": "object",
        "properties": {"result": NUMBER, "note": {"type": "string"}},
        "required": ["result"],
    },
}


class Sums:
    """Add a few numbers by calls, and hand in the sum."""

    def tools(self) -> list[dict[str, Any]]:
        return [ADD, SUBMIT]

    def tasks(self, split: str) -> list[Task]:
        return [Task(id=f"{split}/{k}", seed=k) for k in range(4)]

    def make(self) -> "SumsEnv":
        return SumsEnv()

    def instructions(self) -> str:
        return "Add with add, then submit."

    def demonstrate(self, task: Task) -> list[str]:
        from tutelage.envs.tool_suite import call_text

        first = call_text("add", {"a": task.seed, "b": 1}), call_text("add", {"a": 2, "b": 3})
        return ["\n".join(first), call_text("submit", {"result": task.seed + 6})]


class SumsEnv:
    def reset(self, task: Task) -> Observation:
        self.seed, self.log = task.seed, list[str]()
        return Observation(text=f"What is {task.seed} + 1 + 2 + 3?")

    def call(self, name: str, arguments: dict[str, Any]) -> Observation:
        self.log.append(name)
        if name == "add":
            return Observation(text=str(arguments["a"] + arguments["b"]), reward=0.25)
        right = arguments["result"] == self.seed + 6
        return Observation(text="thank you", reward=float(right), done=True, won=right)

    def close(self) -> None: ...


class Scripted:
    """A policy that says texts, in order, whatever it is asked; ids are its chat's."""

    dtype = "float32"
    context_length = 100_000

    def __init__(self, chat: Chat, texts: Sequence[str]) -> None:
        self.chat, self.texts = chat, list(texts)
        self.asked: list[Request] = []
        self.waiting: list[Request] = []

    def refresh(self) -> None: ...

    def release(self, key: str) -> None: ...

    def submit(self, request: Request) -> None:
        self.asked.append(request)
        self.waiting.append(request)

    def poll(self) -> list[Completion]:
        done = []
        for request in self.waiting:
            ids = (*self.chat.frame(self.texts.pop(0)), self.chat.end)
            logps = (-1.0,) * len(ids)
            done.append(Completion(key=request.key, tokens=ids, logps=logps, ended=True))
        self.waiting = []
        return done
