"""Asks the server of this container for one chat completion of the model it serves, and prints the answer."""

import os

import httpx

URL = f"http://127.0.0.1:{os.environ['BRIM_PORT']}"

model = httpx.get(f"{URL}/v1/models").raise_for_status().json()["data"][0]["id"]
question = {"role": "user", "content": "Hello!"}
reply = httpx.post(
    f"{URL}/v1/chat/completions",
    json={"model": model, "messages": [question], "max_tokens": 32, "temperature": 0},
    timeout=60,
).raise_for_status()
answer = reply.json()["choices"][0]["message"]["content"]
assert answer.strip(), f"an empty answer: {reply.text}"
print(f"{model}: {answer}")
