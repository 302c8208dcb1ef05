"""One more turn of the session in this directory. Arguments: the gateway's address, and what the user says."""

import json
import pathlib
import sys

from google import genai

HISTORY = pathlib.Path("history.json")
contents = json.loads(HISTORY.read_text()) if HISTORY.exists() else []
contents.append({"role": "user", "parts": [{"text": sys.argv[2]}]})
client = genai.Client(api_key="key-of-the-client", http_options={"base_url": sys.argv[1]})
answer = client.models.generate_content(model="gemini-2.5-flash", contents=contents)
contents.append({"role": "model", "parts": [{"text": answer.text}]})
HISTORY.write_text(json.dumps(contents))
