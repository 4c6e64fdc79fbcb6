"""Asks through nearhit with a Python client library, as matrix.rs says.

    matrix_python.py CLIENT URL

Reads a JSON object a line from stdin:
    {"question", "stream", "tools", "json", "leave", "retries"}
and writes what the library made of the answer, a line each:
    {"text"} or {"tool", "arguments"} or {"left": true} or {"status", "message"}
With "leave" the caller goes away after the first piece of the stream.
"""

import asyncio
import json
import sys

KEY = "sk-test"
LEFT = {"left": True}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": CITY}}
JSON_MODE = {"type": "json_object"}
CAPITAL = {
    "type": "object",
    "properties": {"capital": {"type": "string"}},
    "required": ["capital"],
    "additionalProperties": False,
}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "capital", "schema": CAPITAL, "strict": True}}


def openai(url):
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key=KEY)

    def ask(question, stream, tools, json, leave, retries):
        completions = client.with_options(max_retries=retries).chat.completions
        body = {"model": "gpt-x", "messages": [{"role": "user", "content": question}]}
        if tools:
            body["tools"] = [{"type": "function", "function": {**TOOL["function"], "strict": True}}]
        if json:
            body["response_format"] = JSON_MODE
        if stream:
            with completions.stream(**body) as events:
                for event in events:
                    if leave and event.type == "content.delta":
                        return LEFT
                answer = events.get_final_completion()
        else:
            answer = completions.create(**body)
        message = answer.choices[0].message
        if message.tool_calls:
            call = message.tool_calls[0].function
            return {"tool": call.name, "arguments": loads(call.arguments)}
        return {"text": message.content}

    return ask


def anthropic(url):
    from anthropic import Anthropic

    client = Anthropic(base_url=url, api_key=KEY)

    def ask(question, stream, tools, json, leave, retries):
        messages = client.with_options(max_retries=retries).messages
        body = {"model": "claude-x", "max_tokens": 500, "messages": [{"role": "user", "content": question}]}
        if tools:
            body["tools"] = [{"name": "weather", "description": "The weather.", "input_schema": CITY}]
        if json:
            body["output_config"] = {"format": {"type": "json_schema", "schema": CAPITAL}}
        if stream:
            with messages.stream(**body) as events:
                for text in events.text_stream:
                    if leave and text:
                        return LEFT
                message = events.get_final_message()
        else:
            message = messages.create(**body)
        for block in message.content:
            if block.type == "tool_use":
                return {"tool": block.name, "arguments": block.input}
        return {"text": message.content[0].text}

    return ask


def langchain(url):
    from langchain_openai import ChatOpenAI

    def ask(question, stream, tools, json, leave, retries):
        model = ChatOpenAI(model="gpt-x", base_url=f"{url}/v1", api_key=KEY, max_retries=retries)
        if tools:
            model = model.bind_tools([TOOL])
        if json:
            model = model.bind(response_format=JSON_MODE)
        if not stream:
            message = model.invoke(question)
        else:
            message = None
            pieces = model.stream(question)
            for piece in pieces:
                if leave and piece.content:
                    pieces.close()
                    return LEFT
                message = piece if message is None else message + piece
        if message.tool_calls:
            call = message.tool_calls[0]
            return {"tool": call["name"], "arguments": call["args"]}
        return {"text": message.content}

    return ask


def litellm(model, base, json_mode):
    import litellm

    litellm.suppress_debug_info = True

    async def ask(question, stream, tools, json, leave, retries):
        answer = await litellm.acompletion(
            model=model,
            api_base=base,
            api_key=KEY,
            messages=[{"role": "user", "content": question}],
            stream=stream,
            max_retries=0,
            num_retries=retries,
            **({"tools": [TOOL]} if tools else {}),
            **({"response_format": json_mode} if json else {}),
        )
        if stream:
            pieces = []
            async for piece in answer:
                if leave and piece.choices[0].delta.content:
                    # As a server does whose own client is gone: it takes effect while the next piece is waited for.
                    asyncio.current_task().cancel()
                pieces.append(piece)
            answer = litellm.stream_chunk_builder(pieces)
        message = answer.choices[0].message
        if message.tool_calls:
            call = message.tool_calls[0].function
            return {"tool": call.name, "arguments": loads(call.arguments)}
        return {"text": message.content}

    loop = asyncio.Runner()

    def run(**asked):
        try:
            return loop.run(ask(**asked))
        except asyncio.CancelledError:
            return LEFT

    return run


# `json` is a word of the requests.
loads = json.loads

CLIENTS = {
    "openai": openai,
    "anthropic": anthropic,
    "langchain": langchain,
    "litellm openai": lambda url: litellm("openai/gpt-x", f"{url}/v1", JSON_MODE),
    # JSON by a schema, which it makes a tool of for models that it does not know.
    "litellm anthropic": lambda url: litellm("anthropic/claude-sonnet-4-5", url, JSON_SCHEMA),
}


def main():
    _, name, url = sys.argv
    # What a library prints is no answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    ask = CLIENTS[name](url)
    for line in sys.stdin:
        try:
            reply = ask(**json.loads(line))
        except Exception as error:  # Every library has its own; what matters is what it says.
            reply = {"status": getattr(error, "status_code", None), "message": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
