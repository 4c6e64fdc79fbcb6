"""Measures what a call costs through nearhit and its peers, in turns, and prints one table: see README.md."""

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROVIDER, DATA, ADMIN, STREAMS, LITELLM, PORTKEY, REDIS = 9101, 9110, 9111, 9112, 9120, 9130, 9140
ANSWER = (
    "To reset your password open Settings, choose Security, then Reset password, and follow the link that we send to "
    "your e-mail address. It is valid for an hour; if it does not arrive, look into the folder for unwanted mail."
)
SYSTEM = "You are a helpful assistant of a web shop."
PATH = "/v1/chat/completions"
USER = {"Content-Type": "application/json", "Authorization": "Bearer sk-load"}


def question(text, **more):
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    return json.dumps({"model": "gpt-4o-mini", "messages": messages, "temperature": 0, **more})


def completion():
    message = {"role": "assistant", "content": ANSWER}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 24, "completion_tokens": 45, "total_tokens": 69}
    return json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000,
                       "model": "gpt-4o-mini", "choices": choices, "usage": usage})


def stream():
    """The same as events, a word each."""
    def event(delta, reason=None):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000,
                "model": "gpt-4o-mini", "choices": [choice]}
    events = [event({"role": "assistant", "content": ""})]
    events += [event({"content": word + " "}) for word in ANSWER.split()]
    events.append(event({}, "stop"))
    return "".join(f"data: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n"


class Servers:
    """Everything that was started; ended together."""

    def __init__(self, work):
        self.work, self.processes = work, []

    def start(self, name, command, port, path=None, environment=None, patience_s=300):
        log = open(self.work / f"{name}.log", "w")
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                   env={**os.environ, **(environment or {})}, cwd=self.work)
        self.processes.append(process)
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            if process.poll() is not None:
                sys.exit(f"{name} ended at once: see {log.name}")
            try:
                if path is None:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                else:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2).close()
                return process
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{name} does not answer on port {port}: see {log.name}")

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(timeout=130)


def start_provider(servers):
    text = (HERE / "nginx.conf").read_text().replace("@FOLDER@", str(servers.work)).replace("@PORT@", str(PROVIDER))
    answers = servers.work / "answers"
    answers.mkdir(exist_ok=True)
    (answers / "plain.json").write_text(completion())
    for name in ["stream.sse", "slow.sse"]:
        (answers / name).write_text(stream())
    (servers.work / "nginx.conf").write_text(text)
    (servers.work / "slow.log").unlink(missing_ok=True)
    return servers.start("nginx", ["nginx", "-p", str(servers.work), "-c", str(servers.work / "nginx.conf")], PROVIDER)


def start_nearhit(servers, name, port, upstream):
    folder = servers.work / f"data-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    command = [os.environ["NEARHIT"], "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", str(folder),
               "--admin-listen", f"127.0.0.1:{ADMIN if port == DATA else port + 50}", "--upstream", upstream]
    return servers.start(name, command, port, "/readyz")


def start_litellm(servers):
    config = servers.work / "litellm.yaml"
    config.write_text(json.dumps({
        "model_list": [{"model_name": "gpt-4o-mini", "litellm_params": {
            "model": "openai/gpt-4o-mini", "api_base": f"http://127.0.0.1:{PROVIDER}/v1", "api_key": "sk-load"}}],
        "litellm_settings": {"cache": True, "cache_params": {"type": "local", "mode": "default_on"}},
    }))
    program = [str(servers.work / "venv/bin/python"), str(servers.work / "venv/bin/litellm")]
    servers.start("litellm", [*program, "--config", str(config), "--host", "127.0.0.1", "--port", str(LITELLM),
                              "--num_workers", str(os.cpu_count() or 1), "--timeout_worker_healthcheck", "120"], LITELLM, "/health/liveliness",
                  {"LITELLM_MASTER_KEY": "sk-load", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"})


def start_portkey(servers):
    program = servers.work / "node_modules/@portkey-ai/gateway/build/start-server.js"
    servers.start("portkey", ["node", str(program), "--headless", f"--port={PORTKEY}"], PORTKEY)


def wrk(port, body, headers=USER, connections=1, seconds=3.0):
    """p50 and p99 in us, and requests a second."""
    environment = {**os.environ, "LOAD_BODY": body, "LOAD_HEADERS": "\n".join(f"{n}: {v}" for n, v in headers.items())}
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "-s", str(HERE / "post.lua"),
               f"http://127.0.0.1:{port}{PATH}"]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    measured = json.loads(output.strip().splitlines()[-1])
    if measured["failed"] or not measured["requests"]:
        sys.exit(f"port {port}: {measured}")
    measured["per_s"] = measured.pop("requests") / measured.pop("seconds")
    return measured


def ask(port, body, headers=USER, path=PATH):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body.encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return dict(response.headers), response.read()


def in_turns(rounds, contestants):
    """Every contestant once a round, in a rotating order: by name, what each round measured."""
    names, measured = list(contestants), {name: [] for name in contestants}
    for turn in range(rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            measured[name].append(contestants[name]())
    return measured


def middle(values):
    return statistics.median(values)


def spread(values, digits=2):
    return f"{middle(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def hits(table, options):
    body = question("How do I reset my password?")
    for port in [DATA, LITELLM]:
        ask(port, body)
    time.sleep(1)
    # Each of LiteLLM's workers has a cache of its own.
    for _ in range(50):
        ask(LITELLM, body)
    head, _ = ask(DATA, body)
    if head["x-nearhit-tier"] != "exact":
        sys.exit(f"no exact hit: {head}")
    head, _ = ask(LITELLM, body)
    if "x-litellm-cache-key" not in head:
        sys.exit(f"LiteLLM's proxy does not cache: {head}")

    def redis():
        command = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(REDIS), "-c", "32", "-n",
                   str(int(40_000 * options.seconds)), "-d", str(len(completion())), "-t", "get", "--csv"]
        row = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1]
        cells = [cell.strip('"') for cell in row.split(",")]
        return {"per_s": float(cells[1]), "p50_us": float(cells[4]) * 1000}

    subprocess.run(["redis-benchmark", "-p", str(REDIS), "-n", "10", "-d", str(len(completion())), "-t", "set", "-q"],
                   check=True, capture_output=True)
    measured = in_turns(options.rounds, {
        "nearhit, 1 connection": lambda: wrk(DATA, body, seconds=options.seconds),
        "nearhit, 32 connections": lambda: wrk(DATA, body, connections=32, seconds=options.seconds),
        "litellm, 32 connections": lambda: wrk(LITELLM, body, connections=32, seconds=options.seconds),
        "redis get, 32 connections": redis,
    })
    rate = {name: [round_["per_s"] for round_ in rounds] for name, rounds in measured.items()}
    ours = rate["nearhit, 32 connections"]
    table += [
        ("exact hit, one connection: p50 us", "<= 120", spread([r["p50_us"] for r in measured["nearhit, 1 connection"]], 0)),
        ("exact hits a second, 32 connections", ">= 25,000", spread(ours, 0)),
        ("the same over LiteLLM's proxy with its cache", ">= 5",
         spread([a / b for a, b in zip(ours, rate["litellm, 32 connections"])], 1)),
        ("the same over Redis GET of as many bytes", ">= 0.3",
         spread([a / b for a, b in zip(ours, rate["redis get, 32 connections"])])),
    ]
    return measured


def forwarding(table, options):
    body = question("Where is my parcel?")
    portkey = {**USER, "x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{PROVIDER}/v1"}
    seconds = options.seconds
    measured = in_turns(options.rounds, {
        "direct": lambda: wrk(PROVIDER, body, seconds=seconds),
        "nearhit, bypass": lambda: wrk(DATA, body, {**USER, "Cache-Control": "no-store"}, seconds=seconds),
        "nearhit, miss": lambda: wrk(DATA, body, {**USER, "Cache-Control": "no-cache"}, seconds=seconds),
        "litellm": lambda: wrk(LITELLM, question("Where is my parcel?", cache={"no-cache": True, "no-store": True}), seconds=seconds),
        "portkey": lambda: wrk(PORTKEY, body, portkey, seconds=seconds),
    })

    def added(name, what):
        return [(mine[what] - direct[what]) / 1000 for mine, direct in zip(measured[name], measured["direct"])]

    better = [min(pair) for pair in zip(added("litellm", "p50_us"), added("portkey", "p50_us"))]
    for name in ["nearhit, bypass", "nearhit, miss"]:
        table += [
            (f"{name.removeprefix('nearhit, ')}: added latency, p50 ms", "<= 0.3", spread(added(name, "p50_us"), 3)),
            (f"{name.removeprefix('nearhit, ')}: added latency, p99 ms", "<= 2", spread(added(name, "p99_us"))),
        ]
    table += [
        ("added by LiteLLM's proxy, by Portkey's gateway, p50 ms", "",
         f"{spread(added('litellm', 'p50_us'))}, {spread(added('portkey', 'p50_us'))}"),
        ("bypass: added latency over the better of them", "<= 0.2",
         spread([a / b for a, b in zip(added("nearhit, bypass", "p50_us"), better)], 3)),
    ]
    return measured


def embedding_seconds():
    text = urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/metrics").read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("nearhit_embed_seconds_sum"))


def semantic(table, options):
    things = ["password", "delivery address", "newsletter", "invoice", "voucher", "e-mail address", "subscription", "phone number",
              "payment method", "user name", "profile picture", "warranty", "wish list", "shopping basket", "loyalty card"]
    verbs = ["change", "cancel", "find", "check", "share", "print", "hide", "remove"]
    rows = [(f"How do I {verb} my {thing}?", f"How can I {verb} my {thing}?") for verb in verbs for thing in things]
    for stored, _ in rows:
        entry = json.dumps({"request": json.loads(question(stored)), "response": json.loads(completion())})
        ask(DATA, entry, path="/v1/caches/default/entries")
    connection = Connection(DATA)
    measured = []
    for _, asked in rows:
        before = embedding_seconds()
        took_s, head = connection.ask(question(asked).encode())
        if b"x-nearhit-tier: semantic" in head:
            measured.append({"took_ms": took_s * 1000, "embedding_ms": (embedding_seconds() - before) * 1000})
    if len(measured) < len(rows) // 2:
        sys.exit(f"only {len(measured)} of {len(rows)} were semantic hits")
    table += [
        (f"semantic hit, p50 ms of {len(measured)} ({len(rows)} asked); its embedding", "",
         f"{middle([row['took_ms'] for row in measured]):.2f}; {middle([row['embedding_ms'] for row in measured]):.2f}"),
        ("semantic hit: beside its embedding, p50 ms", "<= 0.3",
         f"{middle([row['took_ms'] - row['embedding_ms'] for row in measured]):.3f}"),
    ]
    return measured


class Connection:
    """One connection that is kept, over a raw socket: the time to the first byte of a body is seen as it comes."""

    def __init__(self, port, path=PATH):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.path = path

    def ask(self, body, more=""):
        """Seconds to the first byte of the body, and the head."""
        head = (f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
                f"authorization: Bearer sk-load\r\n{more}content-length: {len(body)}\r\n\r\n").encode()
        began = time.perf_counter()
        self.socket.sendall(head + body)
        answer = b""
        while b"\r\n\r\n" not in answer or answer.endswith(b"\r\n\r\n") and answer.count(b"\r\n\r\n") == 1:
            answer += self.receive()
        took = time.perf_counter() - began
        head, _, rest = answer.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while len(rest) < int(lengths[0]) if lengths else not rest.endswith(b"0\r\n\r\n"):
            rest += self.receive()
        return took, head.lower()

    def receive(self):
        piece = self.socket.recv(1 << 16)
        if not piece:
            sys.exit("a server closed the connection")
        return piece


def streams(table, options):
    body = question("Tell me about returns.", stream=True).encode()
    direct = Connection(PROVIDER, f"/stream{PATH}")
    through = {"bypass": "cache-control: no-store\r\n", "miss": "cache-control: no-cache\r\n", "hit": ""}
    connections = {name: Connection(STREAMS) for name in through}
    for _ in range(2):
        connections["hit"].ask(body)
        time.sleep(0.5)
    measured = {name: [] for name in ["direct", *through]}
    for _ in range(400 * options.rounds):
        measured["direct"].append(direct.ask(body)[0] * 1000)
        for name, more in through.items():
            took, head = connections[name].ask(body, more)
            if f"x-nearhit-outcome: {name}".encode() not in head:
                sys.exit(f"no {name}: {head}")
            measured[name].append(took * 1000)
    for name in ["bypass", "miss"]:
        added = middle([mine - plain for mine, plain in zip(measured[name], measured["direct"])])
        table.append((f"stream, {name}: first byte added, p50 ms", "<= 1", f"{added:.3f}"))
    table.append(("stream, hit: first byte, p50 ms", "", f"{middle(measured['hit']):.3f}"))
    return {name: {"first_byte_p50_ms": middle(times), "n": len(times)} for name, times in measured.items()}


def resident(process):
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    sys.exit("no VmRSS")


async def read_stream(port, body, more, began=None, leave_s=None):
    """Whether the stream came whole; with `leave_s` the client leaves after so long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if began is not None:
        await began.wait()
    body = body.encode()
    writer.write((f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close\r\n"
                  f"authorization: Bearer sk-load\r\n{more}content-length: {len(body)}\r\n\r\n").encode() + body)
    if leave_s is not None:
        await asyncio.sleep(leave_s)
        writer.transport.abort()
        return None
    answer = await reader.read()
    writer.close()
    return b" 200 " in answer[:20] and b"data: [DONE]" in answer


async def many_streams(process):
    """Bytes of memory that each of 1,000 slow streams at once takes."""
    before = resident(process)
    tasks = [asyncio.create_task(read_stream(SLOW, question(f"Tell me story number {n}.", stream=True), "cache-control: no-cache\r\n"))
             for n in range(1000)]
    most = 0
    while not all(task.done() for task in tasks):
        most = max(most, resident(process))
        await asyncio.sleep(0.1)
    whole = sum(task.result() for task in tasks)
    return {"before": before, "most": most, "per_stream": (most - before) / len(tasks), "whole": whole}


async def herd(leader_leaves, text):
    """Calls upstream for 1,000 identical misses at once."""
    log = OPTIONS.work / "slow.log"
    calls = lambda: len(log.read_text().splitlines()) if log.exists() else 0
    before, body, began = calls(), question(text, stream=True), asyncio.Event()
    first = asyncio.create_task(read_stream(SLOW, body, "", leave_s=0.5 if leader_leaves else None))
    await asyncio.sleep(0.05)
    tasks = [asyncio.create_task(read_stream(SLOW, body, "", began)) for _ in range(999)]
    await asyncio.sleep(0.2)
    began.set()
    whole = [await task for task in [first, *tasks]]
    # A call that was cut off is logged when the provider notices.
    await asyncio.sleep(1)
    return {"calls": calls() - before, "whole": sum(answer is True for answer in whole)}


SLOW = STREAMS + 1


def main():
    global OPTIONS
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", default="hits,forwarding,semantic,streams,herd")
    parser.add_argument("--out", type=Path)
    OPTIONS = options = parser.parse_args()
    options.work = options.work.resolve()
    only, table, raw = options.only.split(","), [], {}
    servers = Servers(options.work)
    try:
        start_provider(servers)
        start_nearhit(servers, "nearhit", DATA, f"http://127.0.0.1:{PROVIDER}/v1")
        if "hits" in only or "forwarding" in only:
            start_litellm(servers)
        if "hits" in only:
            servers.start("redis", ["redis-server", "--bind", "127.0.0.1", "--port", str(REDIS), "--save", ""], REDIS)
            raw["hits"] = hits(table, options)
        if "forwarding" in only:
            start_portkey(servers)
            raw["forwarding"] = forwarding(table, options)
        if "semantic" in only:
            raw["semantic"] = semantic(table, options)
        if "streams" in only:
            start_nearhit(servers, "nearhit-streams", STREAMS, f"http://127.0.0.1:{PROVIDER}/stream/v1")
            raw["streams"] = streams(table, options)
        if "streams" in only or "herd" in only:
            process = start_nearhit(servers, "nearhit-slow", SLOW, f"http://127.0.0.1:{PROVIDER}/slow/v1")
        if "streams" in only:
            raw["memory"] = memory = asyncio.run(many_streams(process))
            table.append((f"1,000 streams at once: memory each, KiB ({memory['whole']} came whole)", "<= 64",
                          f"{memory['per_stream'] / 1024:.1f}"))
        if "herd" in only:
            raw["herd"] = [asyncio.run(herd(False, "Who was first?")), asyncio.run(herd(True, "Who left first?"))]
            for name, goal, run in zip(["", ", the first one leaves"], ["1", "2"], raw["herd"]):
                table.append((f"1,000 identical misses at once{name}: calls upstream ({run['whole']} answers whole)", goal, str(run["calls"])))
    finally:
        servers.stop()
    print("| what | goal | measured |\n|---|---|---|")
    for row in table:
        print("| " + " | ".join(row) + " |")
    if options.out:
        options.out.write_text(json.dumps({"rounds": options.rounds, "seconds": options.seconds, **raw}, indent=1) + "\n")


if __name__ == "__main__":
    main()
