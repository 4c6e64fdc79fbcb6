"""Talks to nearhit with gRPC's own Python client, and checks what comes back.

    grpc_client.py PHASE --address 127.0.0.1:8080 [--nothing REASON]

The messages come from the proto file of this repository, compiled as the script starts. Every phase begins with an empty
cache and prints one JSON object last, {"passed": N, ...}; or says what failed first and exits 1.

calls      every call, one after the other
batches    both streams, in order, with wrong requests among the right ones
both       what HTTP stored, gRPC finds, and the other way round
tenants    another key has other entries
refusals   the table of bad input; also prints how often each code was said
anonymous  a call without a key, from where one is needed
stop       streams are open while the server stops; it prints "open" and goes on once a line comes on stdin
"""

import argparse
import json
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from urllib.error import HTTPError

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "proto"))
messages, services = grpc.protos_and_services("nearhit/v1/cache.proto")

SERVICE = "nearhit.v1.CacheService"
PASSWORD = "How do I reset my password?"
SETTINGS = "Open Settings, then Security."
DEADLINE_S = 60
MIB = 1 << 20

# Nothing on the way to the loopback interface goes through a proxy of the environment.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1)]


class Failed(Exception):
    """A check that did not hold."""


class Checks:
    """Counts what held; the first that does not hold ends the run."""

    def __init__(self):
        self.passed = 0
        self.codes = Counter()
        self.step = "start"

    def begin(self, step):
        self.step = step

    def equal(self, what, actual, expected):
        self.holds(what, actual == expected, f"is {actual!r}, expected {expected!r}")

    def holds(self, what, condition, otherwise):
        if not condition:
            raise Failed(f"{self.step}: {what} {otherwise}")
        self.passed += 1

    def refused(self, call, codes, words=(), code=None):
        """The call ends with one of the codes, and its message holds the words."""
        try:
            answer = call()
        except grpc.RpcError as error:
            name, details = error.code().name, error.details()
            self.codes[name] += 1
            self.holds("status", name in codes, f"is {name} ({details!r}), expected {codes}")
            for word in words:
                self.holds("message", word in details, f"{details!r} lacks {word!r}")
            self.holds("message", len(details) < 600, f"is long: {details!r}")
            if code is not None:
                trailers = dict(error.trailing_metadata() or ())
                self.equal("x-nearhit-code", trailers.get("x-nearhit-code"), code)
            return
        raise Failed(f"{self.step}: no error, but {answer!r}")


class Cache:
    """The service's calls with a key, or without one."""

    def __init__(self, channel, key=None):
        self.stub = services.CacheServiceStub(channel)
        self.settings = {"timeout": DEADLINE_S, "metadata": [("authorization", f"Bearer {key}")] if key else None}

    def __getattr__(self, name):
        call = getattr(self.stub, name)
        return lambda request: call(request, **self.settings)

    def insert(self, prompt, response, **more):
        return self.Insert(messages.InsertRequest(prompt=prompt, response=response, **more)).entry_id

    def find(self, prompt, **more):
        """The tier and response of a hit, the outcome and reason of anything else."""
        found = self.Search(messages.SearchRequest(prompt=prompt, **more))
        return (found.tier, found.data[0].response) if found.data else (found.outcome, found.reason)

    def stats(self):
        return self.Stats(messages.StatsRequest())


def http(address, path, body, key=None, media="application/json"):
    """Status and body of a POST to the HTTP API."""
    headers = {"content-type": media} | ({"authorization": f"Bearer {key}"} if key else {})
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}{path}", data=data, headers=headers)
    try:
        with DIRECT.open(request, timeout=DEADLINE_S) as response:
            return response.status, json.loads(response.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())


def chat(question):
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}


def completion(answer):
    choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": [choice], "usage": usage}


def calls(check, channel, arguments):
    cache = Cache(channel)

    check.begin("empty")
    found = cache.Search(messages.SearchRequest(prompt=PASSWORD))
    check.equal("outcome", found.outcome, "miss")
    check.equal("reason", found.reason, "empty")
    check.equal("tier", found.HasField("tier"), False)
    check.equal("data", len(found.data), 0)

    check.begin("insert and search")
    entry = cache.insert(PASSWORD, SETTINGS, attributes={"locale": "en"}, tags=["help"], ttl_millis=60_000)
    check.holds("entry_id", len(entry) == 32, f"is {entry!r}")
    found = cache.Search(messages.SearchRequest(prompt=PASSWORD, attributes={"locale": "en"}))
    check.equal("outcome", (found.outcome, found.tier, found.HasField("reason")), ("hit", "exact", False))
    read = cache.Get(messages.GetRequest(id=entry)).entry
    for match in (found.data[0], read):
        check.equal("id", match.id, entry)
        check.equal("prompt", match.prompt, PASSWORD)
        check.equal("response", (match.response, match.response_is_json), (SETTINGS, False))
        check.equal("attributes", dict(match.attributes), {"locale": "en"})
        check.equal("similarity", (match.similarity, match.probability), (1.0, 1.0))
        check.equal("search_strategy", match.search_strategy, "exact")
        check.holds("life", match.age_ms + match.expires_in_ms >= 60_000 > match.age_ms, f"is {match}")

    check.begin("what must be equal")
    check.equal("no attributes", cache.find(PASSWORD), ("miss", arguments.nothing))
    check.equal("another cache", cache.find(PASSWORD, cache="other", attributes={"locale": "en"}), ("miss", "empty"))
    exact = cache.find("Another question?", search_strategies=["exact"], attributes={"locale": "en"})
    check.equal("exact only", exact, ("miss", "no_candidate"))
    check.equal("its own word", cache.find(PASSWORD, cache="default", attributes={"locale": "en"}), ("exact", SETTINGS))

    check.begin("context and vars")
    cache.insert("Hello {name}", "Hi.", context="You are kind.", vars={"name": "Ada"})
    check.equal("same", cache.find("Hello {name}", context="You are kind.", vars={"name": "Ada"}), ("exact", "Hi."))
    check.equal("no context", cache.find("Hello {name}", vars={"name": "Ada"})[0], "miss")

    check.begin("a provider's request and response")
    request = json.dumps(chat("What is a cache?")).encode()
    response = completion("A store of answers.")
    inserted = cache.Insert(messages.InsertRequest(request=request, response=json.dumps(response), response_is_json=True))
    found = cache.Search(messages.SearchRequest(request=request))
    check.equal("outcome", (found.outcome, found.tier), ("hit", "exact"))
    check.equal("id", found.data[0].id, inserted.entry_id)
    check.equal("response_is_json", found.data[0].response_is_json, True)
    content = json.loads(found.data[0].response)["choices"][0]["message"]["content"]
    check.equal("content", content, "A store of answers.")
    bypassed = cache.Search(messages.SearchRequest(request=json.dumps(chat("x") | {"n": 2}).encode()))
    check.equal("bypass", (bypassed.outcome, bypassed.reason), ("bypass", "n_over_one"))

    check.begin("idempotency")
    same = [cache.insert("Twice?", "Once.", idempotency_key="k") for _ in range(2)]
    check.equal("ids", same[0], same[1])

    check.begin("feedback")
    cache.Feedback(messages.FeedbackRequest(id=entry, correct=True, prompt=PASSWORD))
    cache.Feedback(messages.FeedbackRequest(id=entry, correct=False, prompt="How do I reset my phone?"))

    check.begin("stats")
    stats = cache.stats()
    check.equal("entries", (stats.cache, stats.entries, stats.inserts), ("default", 4, 4))
    check.equal("hits", stats.hits["exact"], 4)
    check.equal("misses", stats.misses["no_candidate"], 1)
    check.holds("misses", stats.misses[arguments.nothing] >= 1, f"are {stats.misses}")
    check.equal("tokens saved", (stats.tokens_saved.input, stats.tokens_saved.output), (3, 4))
    check.holds("bytes", stats.bytes > 0, "are 0")
    check.equal("budget", (stats.budget.max_error, stats.budget.shadow), (0.01, False))
    check.equal("store", (stats.store.lost, stats.store.full), (0, False))

    check.begin("delete")
    cache.Delete(messages.DeleteRequest(id=entry))
    for call, request in ((cache.Get, messages.GetRequest), (cache.Delete, messages.DeleteRequest)):
        check.refused(lambda: call(request(id=entry)), ["NOT_FOUND"], [entry], code="unknown_entry")
    check.equal("search", cache.find(PASSWORD, attributes={"locale": "en"})[0], "miss")

    check.begin("flush")
    cache.insert("elsewhere", "yes", cache="other")
    cache.Flush(messages.FlushRequest(cache="default", confirm="default"))
    check.equal("entries", cache.stats().entries, 0)
    check.equal("another cache", cache.find("elsewhere", cache="other"), ("exact", "yes"))

    check.begin("health")
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        status = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S).status
        check.equal(f"{service!r}", status, health_pb2.HealthCheckResponse.SERVING)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)
        check.equal(f"{service!r}, watched", next(watch).status, health_pb2.HealthCheckResponse.SERVING)
        watch.cancel()
    check.refused(lambda: health.Check(health_pb2.HealthCheckRequest(service="x")), ["NOT_FOUND"], ['"x"'])
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="x"), timeout=DEADLINE_S)
    check.equal("unknown, watched", next(unknown).status, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
    unknown.cancel()

    check.begin("reflection")
    described = ProtoReflectionDescriptorDatabase(channel)
    names = set(described.get_services())
    check.holds("services", {SERVICE, "grpc.health.v1.Health"} <= names, f"are {names}")
    file = described.FindFileContainingSymbol(SERVICE)
    methods = [method.name for method in file.service[0].method]
    expected = ["Search", "Insert", "Get", "Delete", "Flush", "Feedback", "Stats", "SearchBatch", "InsertBatch"]
    check.equal("methods", methods, expected)


def batches(check, channel, arguments):
    cache = Cache(channel)
    count = 200

    check.begin("insert")
    wrong = {7: messages.InsertRequest(prompt="no response"), 8: messages.InsertRequest(response="no prompt")}
    wrong[9] = messages.InsertRequest(cache="No Such", prompt="x", response="y")
    inserts = (wrong.get(i) or messages.InsertRequest(prompt=f"question {i}", response=f"answer {i}") for i in range(count))
    results = list(cache.InsertBatch(inserts))
    check.equal("results", len(results), count)
    invalid = grpc.StatusCode.INVALID_ARGUMENT.value[0]
    for i, result in enumerate(results):
        if i in wrong:
            check.equal(f"result {i}", (result.WhichOneof("result"), result.problem.status), ("problem", invalid))
        else:
            check.holds(f"result {i}", len(result.answer.entry_id) == 32, f"is {result}")
    params = [results[i].problem.param for i in wrong]
    check.equal("params", params, ["response", "prompt", "cache"])
    check.holds("message", "No Such" in results[9].problem.message, f"is {results[9].problem.message!r}")
    check.equal("entries", cache.stats().entries, count - len(wrong))

    check.begin("search")
    searches = (messages.SearchRequest(prompt=f"question {i}", limit=0 if i == 11 else 1) for i in range(count))
    results = list(cache.SearchBatch(searches))
    check.equal("results", len(results), count)
    for i, result in enumerate(results):
        if i == 11:
            check.equal(f"result {i}", (result.problem.param, result.problem.code), ("limit", "invalid_value"))
        elif i in wrong:
            check.equal(f"result {i}", result.answer.outcome, "miss")
        else:
            check.equal(f"result {i}", result.answer.data[0].response, f"answer {i}")

    check.begin("an answer does not wait for the stream's end")
    steps = Steps()
    answers = cache.SearchBatch(iter(steps))
    for i in (3, 1, 2):
        steps.send(messages.SearchRequest(prompt=f"question {i}"))
        check.equal(f"answer {i}", next(answers).answer.data[0].response, f"answer {i}")
    steps.end()
    check.equal("rest", list(answers), [])

    check.begin("nothing is asked")
    check.equal("results", list(cache.SearchBatch(iter([]))), [])

    check.begin("a message over the limit ends the stream, what came before it is answered")
    large = messages.SearchRequest(prompt="x" * (5 * MIB))
    answers = cache.SearchBatch(iter([messages.SearchRequest(prompt="question 1"), large]))
    check.equal("first", next(answers).answer.data[0].response, "answer 1")
    check.refused(lambda: next(answers), ["RESOURCE_EXHAUSTED"])


class Steps:
    """Requests of a stream, sent one at a time."""

    def __init__(self):
        import queue

        self.queue = queue.Queue()

    def __iter__(self):
        return iter(self.queue.get, None)

    def send(self, request):
        self.queue.put(request)

    def end(self):
        self.queue.put(None)


def both(check, channel, arguments):
    for key in (None, "sk-both"):
        cache = Cache(channel, key)
        entries = "/v1/caches/default/entries"

        check.begin(f"HTTP to gRPC, key {key}")
        body = {"prompt": PASSWORD, "response": SETTINGS, "context": "Be brief.", "attributes": {"a": "b"}, "vars": {"v": "1"}}
        status, inserted = http(arguments.address, entries, body, key)
        check.equal("status", status, 201)
        asked = {"context": "Be brief.", "attributes": {"a": "b"}, "vars": {"v": "1"}}
        found = cache.Search(messages.SearchRequest(prompt=PASSWORD, **asked))
        check.equal("id", found.data[0].id, inserted["entryId"])
        check.equal("response", found.data[0].response, SETTINGS)

        check.begin(f"gRPC to HTTP, key {key}")
        request = chat("What is HTTP?")
        inserted = cache.Insert(
            messages.InsertRequest(
                request=json.dumps(request).encode(), response=json.dumps(completion("A protocol.")), response_is_json=True
            )
        )
        status, found = http(arguments.address, f"{entries}/search", {"request": request}, key)
        check.equal("found", (status, found["outcome"], found["tier"]), (200, "hit", "exact"))
        check.equal("id", found["data"][0]["id"], inserted.entry_id)
        check.equal("response", found["data"][0]["response"]["choices"][0]["message"]["content"], "A protocol.")

        check.begin(f"one insert over both, key {key}")
        status, first = http(arguments.address, entries, {"prompt": "once", "response": "1", "idempotencyKey": "k"}, key)
        check.equal("status", status, 201)
        check.equal("id", cache.insert("once", "1", idempotency_key="k"), first["entryId"])
        other = lambda: cache.insert("once", "2", idempotency_key="k")
        check.refused(other, ["ALREADY_EXISTS"], ["idempotencyKey", '"k"'], code="idempotency_conflict")


def tenants(check, channel, arguments):
    ada, bob, nobody = Cache(channel, "sk-ada"), Cache(channel, "sk-bob"), Cache(channel)
    entry = ada.insert(PASSWORD, "Ada's")

    check.begin("strangers")
    for stranger in (bob, nobody):
        check.equal("search", stranger.find(PASSWORD), ("miss", "empty"))
        check.refused(lambda: stranger.Get(messages.GetRequest(id=entry)), ["NOT_FOUND"])
        check.refused(lambda: stranger.Delete(messages.DeleteRequest(id=entry)), ["NOT_FOUND"])
        check.refused(lambda: stranger.Feedback(messages.FeedbackRequest(id=entry)), ["NOT_FOUND"])
        check.equal("entries", stranger.stats().entries, 0)
        stranger.Flush(messages.FlushRequest(confirm="default"))
        searched = list(stranger.SearchBatch(iter([messages.SearchRequest(prompt=PASSWORD)])))
        check.equal("batch", searched[0].answer.outcome, "miss")

    check.begin("each has an answer")
    bob.insert(PASSWORD, "Bob's")
    list(nobody.InsertBatch(iter([messages.InsertRequest(prompt=PASSWORD, response="Nobody's")])))
    for cache, answer in ((ada, "Ada's"), (bob, "Bob's"), (nobody, "Nobody's")):
        check.equal("search", cache.find(PASSWORD), ("exact", answer))

    check.begin("x-api-key")
    by_api_key = Cache(channel)
    by_api_key.settings["metadata"] = [("x-api-key", "sk-ada")]
    status, _ = http(arguments.address, "/v1/caches/default/entries", {"prompt": "a", "response": "b"}, "sk-ada")
    check.equal("the same key by another name", (status, by_api_key.find("a")), (201, ("exact", "b")))


def refusals(check, channel, arguments):
    cache = Cache(channel)
    entry = cache.insert(PASSWORD, SETTINGS)

    def raw(method, message, **settings):
        call = channel.unary_unary(method, request_serializer=lambda m: m, response_deserializer=lambda m: m)
        return lambda: call(message, timeout=DEADLINE_S, **settings)

    def search(**fields):
        return lambda: cache.Search(messages.SearchRequest(**fields))

    def insert(**fields):
        return lambda: cache.Insert(messages.InsertRequest(**fields))

    check.begin("95: a key that nobody gave out")
    for key, value in (("x-nearhit-key", "nh_x"), ("authorization", "Bearer nh_x"), ("x-api-key", "nh_x")):
        call = lambda: cache.stub.Search(messages.SearchRequest(prompt="x"), metadata=[(key, value)], timeout=DEADLINE_S)
        check.refused(call, ["UNAUTHENTICATED"], ["keys"], code="invalid_api_key")
        batch = lambda: list(cache.stub.InsertBatch(iter([]), metadata=[(key, value)], timeout=DEADLINE_S))
        check.refused(batch, ["UNAUTHENTICATED"], ["keys"], code="invalid_api_key")
    twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")]
    call = lambda: cache.stub.Stats(messages.StatsRequest(), metadata=twice, timeout=DEADLINE_S)
    check.refused(call, ["INVALID_ARGUMENT"], ["authorization"])

    check.begin("96: more than 4 MiB")
    check.refused(search(prompt="x" * (4 * MIB)), ["RESOURCE_EXHAUSTED"])
    check.refused(insert(prompt="x", response="x" * (5 * MIB)), ["RESOURCE_EXHAUSTED"])
    check.refused(insert(prompt="x", response="x" * (2 * MIB)), ["RESOURCE_EXHAUSTED"], ["response"], code="answer_too_large")

    check.begin("97: no protobuf")
    whole = messages.InsertRequest(prompt="never", response="stored", tags=["t"]).SerializeToString()
    for end in range(len(whole)):
        cut = whole[:end] + b"\x12\xff"
        check.refused(raw(f"/{SERVICE}/Insert", cut), ["INVALID_ARGUMENT"])
    broken = [b"\x12\x7f", b"\xff" * 20, b"\x0a", b"\x12\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\x07", bytes(9)]
    for method in ("Search", "Insert", "Get", "Stats"):
        for message in broken:
            check.refused(raw(f"/{SERVICE}/{method}", message), ["INVALID_ARGUMENT"])

    check.begin("98: unknown")
    for method in (f"/{SERVICE}/Nothing", f"/{SERVICE}/search", "/nearhit.v1.NoService/Search", "/nearhit.v2.CacheService/Search"):
        check.refused(raw(method, b""), ["UNIMPLEMENTED"])

    check.begin("99: text that is not UTF-8")
    for message, field in ((b"\x12\x02\xff\xfe", "prompt"), (b"\x12\x03\xed\xa0\x80", "prompt"), (b"\x0a\x01\x80", "cache")):
        check.refused(raw(f"/{SERVICE}/Search", message), ["INVALID_ARGUMENT"], ["UTF-8", field])

    check.begin("101: compressed")
    bomb = messages.SearchRequest(prompt="x" * (64 * MIB)).SerializeToString()
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        call = raw(f"/{SERVICE}/Search", bomb, compression=compression)
        check.refused(call, ["UNIMPLEMENTED", "RESOURCE_EXHAUSTED"])

    check.begin("102: gRPC on a path of HTTP's")
    for path in ("/v1/caches/default/entries", "/v1/caches/default/entries/search", "/v1/chat/completions"):
        for media in ("application/grpc", "application/grpc+proto"):
            status, answer = http(arguments.address, path, b"\0\0\0\0\0", media=media)
            check.equal(path, (status, answer["error"]["code"]), (415, "unsupported_media_type"))

    check.begin("fields of a search")
    many = {str(i): "x" for i in range(65)}
    wrong = [
        ({}, ["prompt"]),
        ({"prompt": ""}, ["prompt", '""']),
        ({"prompt": " \n"}, ["prompt"]),
        ({"prompt": "x", "request": b"{}"}, ["request"]),
        ({"request": b"{}", "context": "x"}, ["context"]),
        ({"prompt": "x", "headers": {"openai-beta": "x"}}, ["headers"]),
        ({"request": b"{}", "headers": {"cookie": "x"}}, ["headers", "cookie"]),
        ({"prompt": "x", "limit": 0}, ["limit", "0"]),
        ({"prompt": "x", "limit": -1}, ["limit", "-1"]),
        ({"prompt": "x", "limit": 10**9}, ["limit", "1000000000"]),
        ({"prompt": "x", "similarity_threshold": 1.1}, ["similarityThreshold", "1.1"]),
        ({"prompt": "x", "similarity_threshold": -1}, ["similarityThreshold", "-1"]),
        ({"prompt": "x", "similarity_threshold": float("nan")}, ["similarityThreshold", "NaN"]),
        ({"prompt": "x", "max_error_rate": 2}, ["maxErrorRate", "2"]),
        ({"prompt": "x", "max_error_rate": float("inf")}, ["maxErrorRate", "inf"]),
        ({"prompt": "x", "search_strategies": ["fuzzy"]}, ["searchStrategies", "fuzzy", "semantic"]),
        ({"prompt": "x", "vector": [1.0]}, ["vector"]),
        ({"prompt": "x", "cache": "No"}, ["cache", "No"]),
        ({"prompt": "x", "cache": "../x"}, ["cache", "../x"]),
        ({"prompt": "x", "cache": "a" * 65}, ["cache"]),
        ({"prompt": "x", "attributes": many}, ["attributes", "65"]),
        ({"prompt": "x", "attributes": {"a": "v" * 1025}}, ["attributes", "1025"]),
        ({"prompt": "x", "vars": {"n" * 2000: "v"}}, ["vars", "2000"]),
        ({"request": b"[]"}, ["request", "array"]),
    ]
    for fields, words in wrong:
        check.begin(f"search {fields}")
        check.refused(search(**fields), ["INVALID_ARGUMENT"], words, code="invalid_value")

    for text in (b"", b"{", b"{} {}", b'{"model":"a","model":"b"}', b'{"a":"\xff"}', b'{"a":"\\ud800"}', b'{"a":1e999}', b"[" * 200):
        check.begin(f"request {text[:40]!r}")
        check.refused(search(request=text), ["INVALID_ARGUMENT"], ["request"], code="invalid_json")

    right = {"prompt": "x", "response": "y"}
    wrong = [
        ({"response": "y"}, ["prompt"]),
        ({"prompt": "x"}, ["response"]),
        (right | {"ttl_millis": 0}, ["ttlMillis", "0"]),
        (right | {"ttl_millis": -1}, ["ttlMillis", "-1"]),
        (right | {"tags": list(many)}, ["tags", "65"]),
        (right | {"sources": [messages.Source(id="d" * 2000, version="1")]}, ["sources", "2002"]),
        (right | {"response": "[1]", "response_is_json": True}, ["response", "[1]"]),
        (right | {"response": "{}", "response_is_json": True}, ["response"]),
        ({"request": json.dumps(chat("x") | {"n": 2}).encode(), "response": "y"}, ["request", "n_over_one"]),
    ]
    for fields, words in wrong:
        check.begin(f"insert {fields}")
        check.refused(insert(**fields), ["INVALID_ARGUMENT"], words, code="invalid_value")
    check.begin("response that is no JSON")
    check.refused(insert(**right | {"response": "{", "response_is_json": True}), ["INVALID_ARGUMENT"], ["response"], code="invalid_json")

    check.begin("the others")
    for confirm in ("", "Default", "other"):
        flush = lambda: cache.Flush(messages.FlushRequest(confirm=confirm))
        check.refused(flush, ["INVALID_ARGUMENT"], ["confirm", "default", f'"{confirm}"'])
    for name in ("", "x", "*", "0" * 32, "%2e"):
        check.refused(lambda: cache.Get(messages.GetRequest(id=name)), ["NOT_FOUND"], [f'"{name}"'], code="unknown_entry")
        check.refused(lambda: cache.Delete(messages.DeleteRequest(id=name)), ["NOT_FOUND"], [f'"{name}"'])
        check.refused(lambda: cache.Feedback(messages.FeedbackRequest(id=name)), ["NOT_FOUND"], [f'"{name}"'])
    for name, request in (("Get", messages.GetRequest), ("Stats", messages.StatsRequest), ("Flush", messages.FlushRequest)):
        check.refused(lambda: getattr(cache, name)(request(cache="/")), ["INVALID_ARGUMENT"], ["cache"])

    check.begin("nothing came of it")
    check.equal("entries", cache.stats().entries, 1)
    check.equal("id", cache.Get(messages.GetRequest(id=entry)).entry.response, SETTINGS)


def anonymous(check, channel, arguments):
    check.begin("no key")
    cache = Cache(channel)
    check.refused(lambda: cache.find("x"), ["UNAUTHENTICATED"], ["authorization".title()], code="invalid_api_key")
    check.refused(lambda: cache.insert("x", "y"), ["UNAUTHENTICATED"])
    results = list(cache.InsertBatch(iter([messages.InsertRequest(prompt="x", response="y")])))
    check.equal("batch", results[0].problem.status, grpc.StatusCode.UNAUTHENTICATED.value[0])
    check.begin("a key")
    cache = Cache(channel, "sk-test")
    check.equal("search", cache.find("x"), ("miss", "empty"))
    check.begin("health asks for none")
    status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S).status
    check.equal("status", status, health_pb2.HealthCheckResponse.SERVING)


def stop(check, channel, arguments):
    cache = Cache(channel)
    steps = Steps()
    results = cache.InsertBatch(iter(steps))

    def insert(i):
        steps.send(messages.InsertRequest(prompt=f"question {i}", response=f"answer {i}"))

    check.begin("before")
    insert(0)
    check.holds("result", next(results).answer.entry_id, "is missing")
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
    check.equal("watched", next(watch).status, health_pb2.HealthCheckResponse.SERVING)

    print("open", flush=True)
    sys.stdin.readline()
    check.begin("while it stops")
    statuses = [answer.status for answer in watch]
    check.equal("watched", statuses, [health_pb2.HealthCheckResponse.NOT_SERVING])
    for i in (1, 2):
        insert(i)
    steps.end()
    check.equal("results", [len(result.answer.entry_id) for result in results], [32, 32])
    check.equal("status", results.code(), grpc.StatusCode.OK)


PHASES = {phase.__name__: phase for phase in (calls, batches, both, tenants, refusals, anonymous, stop)}


def main():
    parser = argparse.ArgumentParser(description="Checks nearhit with gRPC's Python client.")
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("--address", required=True)
    parser.add_argument("--nothing", help="the reason where there is nothing to compare with")
    arguments = parser.parse_args()

    check = Checks()
    try:
        with grpc.insecure_channel(arguments.address, options=OPTIONS) as channel:
            PHASES[arguments.phase](check, channel, arguments)
    except Failed as failure:
        sys.exit(f"grpc_client: {failure}")
    except grpc.RpcError as error:
        sys.exit(f"grpc_client: {check.step}: {error.code()}: {error.details()}")
    print(json.dumps({"passed": check.passed, "codes": check.codes}))


if __name__ == "__main__":
    main()
