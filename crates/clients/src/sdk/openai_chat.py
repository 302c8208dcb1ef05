"""One more turn of the session in this directory. Arguments: the gateway's address, and what the user says."""

import json
import pathlib
import sys

import openai

HISTORY = pathlib.Path("history.json")
messages = json.loads(HISTORY.read_text()) if HISTORY.exists() else []
messages.append({"role": "user", "content": sys.argv[2]})
client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="key-of-the-client")
answer = client.chat.completions.create(model="gpt-5.6", messages=messages)
messages.append({"role": "assistant", "content": answer.choices[0].message.content})
HISTORY.write_text(json.dumps(messages))
