"""Uses what providers keep, as programs with the real SDKs do. The argument is the gateway's address."""

import sys

import anthropic
import openai

GATEWAY = sys.argv[1]
CLAUDE = anthropic.Anthropic(api_key="of-the-client", base_url=GATEWAY, max_retries=0)
OPENAI = openai.OpenAI(api_key="of-the-client", base_url=f"{GATEWAY}/v1", max_retries=0)
SYSTEM = "Answer in one word. " * 400


def question(text):
    return {"role": "user", "content": text}


def threads():
    thread = CLAUDE.beta.messages.thread(model="claude-sonnet-5", max_tokens=50, system=SYSTEM)
    for text in ("one", "two", "three"):
        thread.send(question(text))
    with thread.stream(question("four")) as stream:
        stream.until_done()


@anthropic.beta_tool
def weather(city: str) -> str:
    """Tells the weather.

    Args:
        city: the city
    """
    return f"sunny in {city}"


def tool_runner():
    runner = CLAUDE.beta.messages.tool_runner(
        model="claude-sonnet-5",
        max_tokens=50,
        tools=[weather],
        tool_choice={"type": "any"},
        messages=[question("weather?")],
    )
    assert len(list(runner)) == 2


def claude_files():
    file = CLAUDE.files.upload(file=("a.txt", b"hello", "text/plain"))
    source = {"type": "file", "file_id": file.id}
    content = [{"type": "document", "source": source}]
    for _ in range(2):
        CLAUDE.beta.messages.create(
            model="claude-sonnet-5", max_tokens=10, messages=[question(content)]
        )


def conversations():
    conversation = OPENAI.conversations.create()
    for text in ("one", "two", "three"):
        OPENAI.responses.create(model="gpt-5.6", input=text, conversation=conversation.id)
    assert len(list(OPENAI.conversations.items.list(conversation.id))) == 6


def responses():
    last = OPENAI.responses.create(model="gpt-5.6", input="one")
    for text in ("two", "three"):
        with OPENAI.responses.stream(
            model="gpt-5.6", input=text, previous_response_id=last.id
        ) as stream:
            last = stream.get_final_response()
    assert OPENAI.responses.retrieve(last.id).id == last.id


def background():
    response = OPENAI.responses.create(model="gpt-5.6", input="one", background=True)
    while response.status in ("queued", "in_progress"):
        response = OPENAI.responses.retrieve(response.id)
    OPENAI.responses.delete(response.id)


def openai_files():
    file = OPENAI.files.create(file=("a.txt", b"hello"), purpose="user_data")
    content = [{"type": "input_file", "file_id": file.id}]
    OPENAI.responses.create(model="gpt-5.6", input=[question(content)])
    OPENAI.files.delete(file.id)


for use in (
    threads, tool_runner, claude_files, conversations, responses, background, openai_files
):
    use()
    print(use.__name__, flush=True)
