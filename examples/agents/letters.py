"""An agent that asks twice and is paid for every right letter: the most that can be earned is 1."""

import httpx
import openai

WORDS = {"door": "a", "room": "b", "lamp": "c", "key": "d"}
HTTP = httpx.Client(timeout=60)  # one for all episodes: opening one takes longer than a call


def tasks(split):
    return [{"id": f"{split}/{word}", "question": word, "answer": WORDS[word]} for word in WORDS]


def solve(base_url, api_key, task):
    client = openai.OpenAI(base_url=base_url, api_key=api_key, http_client=HTTP)
    messages, earned = (
        [{"role": "user", "content": f"Which letter has the {task.data['question']}?"}],
        0.0,
    )
    for _ in range(2):
        reply = client.chat.completions.create(model="student", messages=messages)
        text = reply.choices[0].message.content
        named = [letter for letter in WORDS.values() if letter in text]
        earned += 0.5 * (named == [task.data["answer"]])
        messages += [
            {"role": "assistant", "content": text},
            {"role": "user", "content": "Once more?"},
        ]
    return {"reward": earned, "won": earned == 1.0}
