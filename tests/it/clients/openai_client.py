"""Talks through nearhit with OpenAI's own Python client, and checks what comes back.

    openai_client.py --base-url http://127.0.0.1:8080/v1 --api-key KEY [--phase first|again]
                     [--upstream-metrics http://127.0.0.1:4010/metrics]

nearhit's upstream must be `llmock --strict --metrics` with fixtures.json from this folder. The client is given a base
URL and nothing else: no other change of a program that talks to OpenAI is needed.

--phase first   (the default) the whole scenario, on a cache that is still empty
--phase again   the same questions once more, after a restart on the same data: every one of them is a hit
--upstream-metrics URL   also checks, after every step, that the upstream was called for the misses and for nothing else

Prints {"passed": N} and exits 0, or says what failed first and exits 1.

How the stand-in's calls are counted: with --metrics it serves GET /metrics in Prometheus' text form, and a call is one
of

    aimock_requests_total{method="POST",path="/v1/chat/completions",status="200"} 3

A question without a fixture is counted with status 503, so the sum over all statuses is the number of calls.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

# A client's settings may also come from its environment; here they come from the arguments alone.
for name in [name for name in os.environ if name.startswith("OPENAI_")]:
    del os.environ[name]

from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI, OpenAIError  # noqa: E402

MODEL = "gpt-4o-mini"
PASSWORD = "How do I reset my password?"
PASSWORD_REWORDED = "How can I reset my password?"
HOURS = "What are your opening hours on Sundays?"
IN_FRENCH = "You answer in French."

# The shipped model gives the two password questions a cosine of 0.992.
SIMILARITY_MIN = 0.9
DEADLINE_S = 10
POLL_S = 0.02

HERE = Path(__file__).resolve().parent
# Nothing on the way to the loopback interface goes through a proxy of the environment.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failed(Exception):
    """A check that did not hold."""


class Checks:
    """Counts what held; the first that does not hold ends the run."""

    def __init__(self):
        self.passed = 0
        self.step = "start"

    def begin(self, step):
        self.step = step

    def equal(self, what, actual, expected):
        self.holds(what, actual == expected, f"is {actual!r}, expected {expected!r}")

    def holds(self, what, condition, otherwise):
        if not condition:
            raise Failed(f"{self.step}: {what} {otherwise}")
        self.passed += 1


class Upstream:
    """The stand-in's count of calls, against the number of calls that this run should have caused."""

    def __init__(self, metrics_url, checks):
        self.metrics_url = metrics_url
        self.checks = checks
        self.expected = self.calls() if metrics_url else 0

    def calls(self):
        counts = CHAT_CALLS.findall(fetch(self.metrics_url))
        return sum(int(count) for count in counts)

    def check(self, more):
        """`more` calls since the last check. The stand-in counts a call when its answer is out, so it may lag."""
        self.expected += more
        if self.metrics_url:
            calls = until(self.calls, lambda calls: calls >= self.expected)
            self.checks.equal("number of upstream calls", calls, self.expected)


CHAT_CALLS = re.compile(r'^aimock_requests_total\{[^}]*path="/v1/chat/completions"[^}]*\} (\d+)$', re.MULTILINE)


class Scenario:
    def __init__(self, base_url, api_key, metrics_url, checks):
        self.base_url = base_url.rstrip("/")
        self.api_key = api_key
        self.checks = checks
        self.upstream = Upstream(metrics_url, checks)
        self.ids = set()
        # No retries: a call that fails is a failure to be seen.
        self.settings = {"base_url": self.base_url, "api_key": api_key, "max_retries": 0, "timeout": 30}
        self.client = OpenAI(**self.settings, http_client=DefaultHttpxClient(trust_env=False))

    def first(self):
        """The cache is empty: what is asked first is a miss, and what comes after it a hit."""
        check = self.checks

        check.begin("plain miss")
        answer = self.ask("miss", None, PASSWORD)
        check.equal("answer", text_of(answer), ANSWERS[PASSWORD])
        check.equal("usage.total_tokens", answer.usage.total_tokens, TOKENS[PASSWORD])
        check.holds("usage.nearhit", "nearhit" not in answer.usage.to_dict(), "is there although the provider answered")
        self.upstream.check(1)
        self.wait_for_entries(1)

        self.reworded_hits()

        check.begin("streamed miss")
        text, usage, _ = self.ask_streamed("miss", None, HOURS)
        check.equal("answer", text, ANSWERS[HOURS])
        check.equal("usage that nobody asked for", usage, None)
        self.upstream.check(1)
        self.wait_for_entries(2)

        self.hit_of_recorded_stream()

        check.begin("another system prompt")
        answer = self.ask("miss", None, PASSWORD, system=IN_FRENCH)
        check.equal("answer", text_of(answer), ANSWERS[PASSWORD, IN_FRENCH])
        self.upstream.check(1)
        self.wait_for_entries(3)

        self.hits_under_each_system_prompt()
        self.async_hit()

    def again(self):
        """The cache was filled by `first`: everything is a hit."""
        self.reworded_hits()
        self.hit_of_recorded_stream()
        self.hits_under_each_system_prompt()
        self.async_hit()

    def reworded_hits(self):
        check = self.checks

        check.begin("reworded")
        answer = self.ask("hit", "semantic", PASSWORD_REWORDED)
        check.equal("answer", text_of(answer), ANSWERS[PASSWORD])
        self.check_usage(answer.usage.to_dict(), TOKENS[PASSWORD])

        check.begin("reworded, streamed with usage")
        text, usage, last = self.ask_streamed("hit", "semantic", PASSWORD_REWORDED, with_usage=True)
        check.equal("answer", text, ANSWERS[PASSWORD])
        check.holds("usage", usage is not None, "was asked for and is in no chunk")
        check.holds("last chunk", last.usage is not None and not last.choices, "is not the one with the usage")
        self.check_usage(usage.to_dict(), TOKENS[PASSWORD])

        check.begin("reworded, streamed without usage")
        text, usage, _ = self.ask_streamed("hit", "semantic", PASSWORD_REWORDED)
        check.equal("answer", text, ANSWERS[PASSWORD])
        check.equal("usage that nobody asked for", usage, None)
        self.upstream.check(0)

    def hit_of_recorded_stream(self):
        check = self.checks
        check.begin("plain hit of a recorded stream")
        answer = self.ask("hit", "exact", HOURS)
        check.equal("answer", text_of(answer), ANSWERS[HOURS])
        # The stream carried no usage, so the figures are estimates and say so.
        usage = answer.usage.to_dict()
        self.check_cached(usage)
        check.equal("usage.nearhit.estimated", usage["nearhit"].get("estimated"), True)
        check.holds("usage.completion_tokens", usage["completion_tokens"] > 0, "is 0")
        self.upstream.check(0)

    def hits_under_each_system_prompt(self):
        check = self.checks
        for system in (None, IN_FRENCH):
            check.begin(f"exact hit, system prompt {system!r}")
            answer = self.ask("hit", "exact", PASSWORD, system=system)
            key = (PASSWORD, system) if system else PASSWORD
            check.equal("answer", text_of(answer), ANSWERS[key])
            self.check_usage(answer.usage.to_dict(), TOKENS[key])
        self.upstream.check(0)

    def async_hit(self):
        self.checks.begin("async client")
        answer = asyncio.run(self.ask_async("hit", "exact", PASSWORD))
        self.checks.equal("answer", text_of(answer), ANSWERS[PASSWORD])
        self.upstream.check(0)

    def ask(self, outcome, tier, question, system=None):
        raw = self.client.chat.completions.with_raw_response.create(model=MODEL, messages=messages(question, system))
        return self.take_answer(raw, outcome, tier)

    async def ask_async(self, outcome, tier, question):
        async with AsyncOpenAI(**self.settings, http_client=DefaultAsyncHttpxClient(trust_env=False)) as client:
            raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=messages(question))
            return self.take_answer(raw, outcome, tier)

    def take_answer(self, raw, outcome, tier):
        self.check_headers(raw.headers, outcome, tier)
        answer = raw.parse()
        self.checks.equal("model", answer.model, MODEL)
        self.checks.equal("number of choices", len(answer.choices), 1)
        self.checks.equal("finish_reason", answer.choices[0].finish_reason, "stop")
        self.check_fresh(answer.id)
        return answer

    def ask_streamed(self, outcome, tier, question, with_usage=False):
        """The text of all chunks, the usage if one carried it, and the last chunk."""
        options = {"stream_options": {"include_usage": True}} if with_usage else {}
        raw = self.client.chat.completions.with_raw_response.create(
            model=MODEL, messages=messages(question), stream=True, **options
        )
        self.check_headers(raw.headers, outcome, tier)
        chunks = list(raw.parse())
        self.checks.holds("stream", chunks, "has no chunks")
        self.checks.equal("number of ids in the stream", len({chunk.id for chunk in chunks}), 1)
        self.check_fresh(chunks[0].id)
        choices = [choice for chunk in chunks for choice in chunk.choices]
        reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
        self.checks.equal("finish reasons", reasons, ["stop"])
        usages = [chunk.usage for chunk in chunks if chunk.usage]
        self.checks.holds("usage", len(usages) <= 1, "is in more than one chunk")
        text = "".join(choice.delta.content or "" for choice in choices)
        return text, usages[0] if usages else None, chunks[-1]

    def check_headers(self, headers, outcome, tier):
        check = self.checks
        check.equal("x-nearhit-outcome", headers.get("x-nearhit-outcome"), outcome)
        check.equal("x-nearhit-tier", headers.get("x-nearhit-tier"), tier)
        check.equal("x-cache-status", headers.get("x-cache-status"), outcome.upper())
        if outcome == "miss":
            check.holds("x-nearhit-reason", headers.get("x-nearhit-reason"), "is missing")
            return
        check.holds("x-nearhit-entry", headers.get("x-nearhit-entry"), "is missing")
        check.holds("age", headers.get("age", "").isdigit(), f"is {headers.get('age')!r}, expected whole seconds")
        if tier == "semantic":
            similarity = float(headers.get("x-nearhit-similarity", "nan"))
            check.holds("x-nearhit-similarity", SIMILARITY_MIN <= similarity <= 1, f"is {similarity}")

    def check_usage(self, usage, total_tokens):
        self.checks.equal("usage.total_tokens", usage["total_tokens"], total_tokens)
        self.check_cached(usage)
        self.checks.holds("usage.nearhit", "estimated" not in usage["nearhit"], "calls real figures estimated")

    def check_cached(self, usage):
        own = usage.get("nearhit", {})
        self.checks.equal("usage.nearhit.cached", own.get("cached"), True)
        self.checks.equal("usage.nearhit.provider_tokens", own.get("provider_tokens"), 0)

    def check_fresh(self, answer_id):
        self.checks.holds("id", answer_id and answer_id not in self.ids, f"{answer_id!r} is not a fresh one")
        self.ids.add(answer_id)

    def wait_for_entries(self, least):
        """An answer is stored after it was sent."""
        entries = until(self.entries, lambda entries: entries >= least)
        self.checks.holds("number of entries", entries >= least, f"is {entries}, expected at least {least}")

    def entries(self):
        try:
            stats = fetch(f"{self.base_url}/caches/default/stats", {"Authorization": f"Bearer {self.api_key}"})
        except HTTPError as error:
            # A cache exists from its first write.
            if error.code == 404:
                return 0
            raise
        return json.loads(stats)["entries"]


def messages(question, system=None):
    asked = [{"role": "user", "content": question}]
    return [{"role": "system", "content": system}, *asked] if system else asked


def text_of(answer):
    return answer.choices[0].message.content


def fetch(url, headers=None):
    request = urllib.request.Request(url, headers=headers or {})
    with DIRECT.open(request, timeout=DEADLINE_S) as response:
        return response.read().decode("utf-8")


def until(read, is_enough):
    """What `read` gives once it is enough, or last gave before the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_enough(value := read()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return value


def fixtures():
    """What the stand-in answers, and the tokens it counts, by question, or by question and system prompt."""
    answers, tokens = {}, {}
    for fixture in json.loads((HERE / "fixtures.json").read_text(encoding="utf-8"))["fixtures"]:
        match, response = fixture["match"], fixture["response"]
        question, system = match["userMessage"], match.get("systemMessage")
        key = (question, system) if system else question
        answers[key], tokens[key] = response["content"], response["usage"]["total_tokens"]
    return answers, tokens


ANSWERS, TOKENS = fixtures()


def main():
    parser = argparse.ArgumentParser(description="Checks nearhit with OpenAI's Python client.")
    parser.add_argument("--base-url", required=True, help="nearhit's address, ending in /v1")
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--phase", choices=("first", "again"), default="first")
    parser.add_argument("--upstream-metrics", metavar="URL", help="llmock's /metrics")
    arguments = parser.parse_args()

    checks = Checks()
    try:
        scenario = Scenario(arguments.base_url, arguments.api_key, arguments.upstream_metrics, checks)
        getattr(scenario, arguments.phase)()
    except Failed as failure:
        sys.exit(f"openai_client: {failure}")
    except (OpenAIError, OSError, ValueError, KeyError) as error:
        sys.exit(f"openai_client: {checks.step}: {type(error).__name__}: {error}")
    print(json.dumps({"passed": checks.passed}))


if __name__ == "__main__":
    main()
