"""Talks through nearhit with Anthropic's and OpenAI's own Python clients, over every API whose answers are cached.

    api_clients.py --url http://127.0.0.1:8080 --completions-url http://127.0.0.1:8090

The upstream of the first server must be `llmock --strict` with api_fixtures.json from this folder, for both providers.
The stand-in does not know the older completions: the second server's upstream must answer those with COMPLETION.

Prints {"passed": N} and exits 0, or says what failed first and exits 1.
"""

import argparse
import json
import os
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

# A client's settings may also come from its environment; here they come from the arguments alone.
for name in [name for name in os.environ if name.startswith(("OPENAI_", "ANTHROPIC_"))]:
    del os.environ[name]

import anthropic  # noqa: E402
import openai  # noqa: E402

KEY = "sk-test"
CLOSE = "How do I close my account?"
INVOICES = "Where do I find my invoices?"
COMPLETION = "and they lived happily ever after."
DEADLINE_S = 10
POLL_S = 0.02

HERE = Path(__file__).resolve().parent
# Nothing on the way to the loopback interface goes through a proxy of the environment.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
ANSWERS = {
    fixture["match"]["userMessage"]: fixture["response"]["content"]
    for fixture in json.loads((HERE / "api_fixtures.json").read_text(encoding="utf-8"))["fixtures"]
    if "userMessage" in fixture["match"]
}


class Failed(Exception):
    """A check that did not hold."""


class Checks:
    """Counts what held; the first that does not hold ends the run."""

    def __init__(self):
        self.passed = 0
        self.step = "start"

    def equal(self, what, actual, expected):
        if actual != expected:
            raise Failed(f"{self.step}: {what} is {actual!r}, expected {expected!r}")
        self.passed += 1

    def outcome(self, headers, outcome, word):
        name = "x-nearhit-tier" if outcome == "hit" else "x-nearhit-reason"
        found = (headers.get("x-nearhit-outcome"), headers.get(name) if word else None)
        self.equal("outcome", found, (outcome, word))

    def cached(self, usage):
        self.equal("usage.nearhit", usage["nearhit"], {"cached": True, "provider_tokens": 0})


class Server:
    def __init__(self, url):
        self.url = url.rstrip("/")
        self.entries = 0

    def openai(self):
        http = openai.DefaultHttpxClient(trust_env=False)
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=30, http_client=http)

    def anthropic(self):
        http = anthropic.DefaultHttpxClient(trust_env=False)
        # Both clients' calls are one caller's here: the stand-in takes any key.
        return anthropic.Anthropic(base_url=self.url, auth_token=KEY, max_retries=0, timeout=30, http_client=http)

    def wait_for_entry(self):
        """An answer is stored after it was sent."""
        self.entries += 1
        deadline = time.monotonic() + DEADLINE_S
        while (entries := self.count()) < self.entries:
            if time.monotonic() > deadline:
                raise Failed(f"{entries} entries are stored, expected {self.entries}")
            time.sleep(POLL_S)

    def count(self):
        request = urllib.request.Request(
            f"{self.url}/v1/caches/default/stats", headers={"Authorization": f"Bearer {KEY}"}
        )
        try:
            with DIRECT.open(request, timeout=DEADLINE_S) as response:
                return json.load(response)["entries"]
        except HTTPError as error:
            # A cache exists from its first write.
            if error.code == 404:
                return 0
            raise


def messages(server, check):
    client = server.anthropic()

    def ask(question, **more):
        asked = [{"role": "user", "content": question}]
        return client.messages.with_raw_response.create(model="claude-x", max_tokens=50, messages=asked, **more)

    check.step = "messages, plain miss"
    raw = ask(CLOSE)
    check.outcome(raw.headers, "miss", None)
    first = raw.parse()
    check.equal("answer", first.content[0].text, ANSWERS[CLOSE])
    server.wait_for_entry()

    check.step = "messages, plain hit"
    raw = ask(CLOSE)
    check.outcome(raw.headers, "hit", "exact")
    hit = raw.parse()
    check.equal("content", hit.content, first.content)
    check.equal("id", (hit.id == first.id, hit.id.startswith("msg_")), (False, True))
    check.equal("stop_reason", hit.stop_reason, "end_turn")
    check.equal("output_tokens", hit.usage.output_tokens, first.usage.output_tokens)
    check.cached(hit.usage.to_dict())

    check.step = "messages, streamed hit"
    raw = ask(CLOSE, stream=True)
    check.outcome(raw.headers, "hit", "exact")
    events = list(raw.parse())
    check.equal("first and last event", (events[0].type, events[-1].type), ("message_start", "message_stop"))
    with client.messages.stream(
        model="claude-x", max_tokens=50, messages=[{"role": "user", "content": CLOSE}]
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    check.equal("text", text, ANSWERS[CLOSE])
    check.equal("content", [block.to_dict() for block in final.content], [block.to_dict() for block in first.content])
    check.equal("usage", final.usage.output_tokens, first.usage.output_tokens)
    check.cached(final.usage.to_dict())

    check.step = "messages, streamed miss"
    raw = ask(INVOICES, stream=True)
    check.outcome(raw.headers, "miss", None)
    said = "".join(event.delta.text for event in raw.parse() if event.type == "content_block_delta")
    check.equal("answer", said, ANSWERS[INVOICES])
    server.wait_for_entry()

    check.step = "messages, plain hit of a recorded stream"
    raw = ask(INVOICES)
    check.outcome(raw.headers, "hit", "exact")
    check.equal("answer", raw.parse().content[0].text, ANSWERS[INVOICES])

    check.step = "messages, system prompts"
    check.outcome(ask(CLOSE, system="Be brief.").headers, "miss", None)
    server.wait_for_entry()
    blocks = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    check.outcome(ask(CLOSE, system=blocks).headers, "hit", "exact")

    check.step = "messages, tools"
    tool = {"name": "f", "description": "x", "input_schema": {"type": "object", "properties": {}}}
    check.outcome(ask(CLOSE, tools=[tool]).headers, "bypass", "tools_in_use")


def responses(server, check):
    client = server.openai()

    def ask(question, **more):
        return client.responses.with_raw_response.create(model="gpt-x", input=question, **{"store": False, **more})

    check.step = "responses, plain miss"
    raw = ask(CLOSE, metadata={"run": "first"})
    check.outcome(raw.headers, "miss", None)
    first = raw.parse()
    check.equal("answer", first.output_text, ANSWERS[CLOSE])
    server.wait_for_entry()

    check.step = "responses, plain hit"
    raw = ask(CLOSE, metadata={"run": "second"})
    check.outcome(raw.headers, "hit", "exact")
    hit = raw.parse()
    check.equal("answer", hit.output_text, ANSWERS[CLOSE])
    check.equal("id", (hit.id == first.id, hit.id.startswith("resp_")), (False, True))
    check.equal("status and metadata", (hit.status, hit.metadata), ("completed", {"run": "second"}))
    check.cached(hit.usage.to_dict())

    check.step = "responses, streamed hit"
    raw = ask(CLOSE, stream=True)
    check.outcome(raw.headers, "hit", "exact")
    events = list(raw.parse())
    numbers = [event.sequence_number for event in events]
    check.equal("sequence numbers", numbers, list(range(len(events))))
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    check.equal("deltas", said, ANSWERS[CLOSE])
    check.equal("last event", (events[-1].type, events[-1].response.output_text), ("response.completed", said))
    with client.responses.stream(model="gpt-x", input=CLOSE, store=False) as stream:
        final = stream.get_final_response()
    check.equal("final response", final.output_text, ANSWERS[CLOSE])

    check.step = "responses, the same as a chat completion"
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-x", messages=[{"role": "user", "content": CLOSE}]
    )
    check.outcome(raw.headers, "hit", "exact")
    check.equal("answer", raw.parse().choices[0].message.content, ANSWERS[CLOSE])

    check.step = "responses, streamed miss"
    raw = ask(INVOICES, stream=True)
    check.outcome(raw.headers, "miss", None)
    check.equal("last event", list(raw.parse())[-1].type, "response.completed")
    server.wait_for_entry()
    raw = ask(INVOICES)
    check.outcome(raw.headers, "hit", "exact")
    check.equal("answer", raw.parse().output_text, ANSWERS[INVOICES])

    check.step = "responses that the provider keeps"
    check.outcome(ask(CLOSE, store=openai.NOT_GIVEN).headers, "bypass", "stateful")


def embeddings(server, check):
    client = server.openai()

    def ask(**more):
        return client.embeddings.with_raw_response.create(**{"model": "text-embedding-x", "input": "a text", **more})

    check.step = "embeddings"
    raw = ask()
    check.outcome(raw.headers, "miss", None)
    first = raw.text
    check.equal("vector", raw.parse().data[0].embedding, [0.125, -0.5, 0.0078125])
    server.wait_for_entry()
    raw = ask()
    check.outcome(raw.headers, "hit", "exact")
    check.equal("body", raw.text, first)
    check.equal("vector", raw.parse().data[0].embedding, [0.125, -0.5, 0.0078125])
    check.outcome(ask(dimensions=3).headers, "miss", None)
    server.wait_for_entry()
    check.outcome(ask(input=["a text", "a text"]).headers, "miss", None)
    server.wait_for_entry()


def completions(server, check):
    client = server.openai()

    def ask(**more):
        prompt = "Once upon a time"
        return client.completions.with_raw_response.create(**{"model": "gpt-x-instruct", "prompt": prompt, **more})

    check.step = "completions"
    raw = ask()
    check.outcome(raw.headers, "miss", None)
    check.equal("answer", raw.parse().choices[0].text, COMPLETION)
    server.wait_for_entry()
    raw = ask()
    check.outcome(raw.headers, "hit", "exact")
    hit = raw.parse()
    check.equal("answer", (hit.choices[0].text, hit.choices[0].finish_reason), (COMPLETION, "stop"))
    check.cached(hit.usage.to_dict())
    raw = ask(stream=True)
    check.outcome(raw.headers, "hit", "exact")
    check.equal("answer", "".join(chunk.choices[0].text for chunk in raw.parse()), COMPLETION)
    check.outcome(ask(prompt=["Once", "upon"]).headers, "bypass", "not_cacheable")


def main():
    parser = argparse.ArgumentParser(description="Checks nearhit with Anthropic's and OpenAI's Python clients.")
    parser.add_argument("--url", required=True, help="nearhit's address")
    parser.add_argument("--completions-url", required=True, help="the same of the one for completions")
    arguments = parser.parse_args()

    check = Checks()
    server = Server(arguments.url)
    try:
        messages(server, check)
        responses(server, check)
        embeddings(server, check)
        completions(Server(arguments.completions_url), check)
    except Failed as failure:
        sys.exit(f"api_clients: {failure}")
    except (anthropic.AnthropicError, openai.OpenAIError, OSError, ValueError, KeyError) as error:
        sys.exit(f"api_clients: {check.step}: {type(error).__name__}: {error}")
    print(json.dumps({"passed": check.passed}))


if __name__ == "__main__":
    main()
