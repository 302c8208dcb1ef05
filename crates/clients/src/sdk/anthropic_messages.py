"""One more turn of the session in this directory. Arguments: the gateway's address, and what the user says."""

import json
import pathlib
import sys

import anthropic

HISTORY = pathlib.Path("history.json")
messages = json.loads(HISTORY.read_text()) if HISTORY.exists() else []
messages.append({"role": "user", "content": sys.argv[2]})
client = anthropic.Anthropic(base_url=sys.argv[1], api_key="key-of-the-client")
answer = client.messages.create(model="claude-sonnet-4-5", max_tokens=64, messages=messages)
messages.append({"role": "assistant", "content": answer.content[0].text})
HISTORY.write_text(json.dumps(messages))
