"""Compares nearhit's index with hnswlib, faiss and usearch on the same vectors.

Every engine is a process of its own that reads commands from stdin, one a
line, and answers each with a line on stdout. nearhit's is the executable in
the variable NEARHIT_ENGINE; a peer's is this script run as `compare.py --peer NAME`.
Each engine times itself around the work alone: reading the
files, the pipe and the start of the process are in nobody's time.

    build BASE N DIMS THREADS              ok SECONDS
    search QUERIES DIMS EF K THREADS OUT   ok SECONDS      all queries once
    bytes                                  ok INDEX_BYTES VECTOR_FILE_BYTES
    rss                                    ok KILOBYTES
    quit
    save FILE, load FILE N DIMS            ok SECONDS      peers only

Vector files are rows of little-endian f32, OUT is rows of K little-endian u32.
"""

import argparse
import contextlib
import ctypes
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

DIMS = 384
K = 10
QUERIES = 2_000
EFS = (16, 24, 32, 40, 48, 64, 96, 128)
# The ef of the second timing of --growth, so that a larger ef is not taken for growth.
FIXED_EF = 64
RECALL_MIN = 0.998
ROUNDS_MIN = 9
M = 16
EF_CONSTRUCTION = 200
OURS = "nearhit"
# Idle OpenMP threads spin for some milliseconds after a call: the next engine waits that out.
PAUSE_S = 0.05


# The vectors


class Mixture:
    """Unit vectors around Zipf-sized clusters of a 64-dimensional space, plus noise in all dimensions.

    The exponents and the spread were chosen so that hnswlib needs an ef of about
    32 at 100k vectors. With plain Zipf sizes and latent dimensions of one scale
    the rare clusters are islands: at 30k a fresh query in 250 missed even at 128.
    Whoever changes a number here raises REVISION: it names the cached files.
    """

    REVISION = 1
    SEED = 20_240_517
    CLUSTERS = 4_000
    LATENT = 64
    # The cluster of rank r has a share of r^-ZIPF, the latent dimension j a scale of j^-DECAY.
    ZIPF = 0.7
    DECAY = 0.25
    # Standard deviations; a cluster's centre has 1 in each latent dimension before its scale.
    SPREAD = 0.35
    FULL_RANK = 0.1
    NEAR_COSINE = 0.945
    CHUNK = 10_000

    def __init__(self):
        rng = np.random.default_rng([self.SEED, 0])
        self.centres = rng.standard_normal((self.CLUSTERS, self.LATENT), dtype=np.float32)
        scales = np.arange(1, self.LATENT + 1, dtype=np.float32)[:, None] ** -self.DECAY
        self.projection = rng.standard_normal((self.LATENT, DIMS), dtype=np.float32) * scales
        # As long as the noise would be at FULL_RANK = 1.
        self.projection *= (DIMS / np.square(self.projection).sum()) ** 0.5
        shares = np.arange(1, self.CLUSTERS + 1) ** -self.ZIPF
        self.shares = shares / shares.sum()

    def draw(self, rng, rows):
        """Fresh vectors, f32, `rows` x DIMS."""
        labels = rng.choice(self.CLUSTERS, rows, p=self.shares)
        return self.lift(rng, self.centres[labels] + self.SPREAD * self.latent(rng, rows))

    def near(self, rng, vectors):
        """A vector for each given one, at a cosine of about NEAR_COSINE to it."""
        away = self.lift(rng, self.latent(rng, len(vectors)))
        away = unit(away - (away * vectors).sum(axis=1, keepdims=True) * vectors)
        cosine = np.float32(self.NEAR_COSINE)
        return unit(cosine * vectors + np.sqrt(1 - cosine**2) * away)

    def latent(self, rng, rows):
        return rng.standard_normal((rows, self.LATENT), dtype=np.float32)

    def lift(self, rng, latent):
        noise = rng.standard_normal((len(latent), DIMS), dtype=np.float32)
        return unit(latent @ self.projection + np.float32(self.FULL_RANK) * noise)


@dataclass
class Vectors:
    """The files of one size; `exact` holds the true K nearest rows of each query, best first."""

    count: int
    base: Path
    queries: Path
    exact: np.ndarray


def vectors(work, count):
    """Reads the vectors of a size from `work`, made there if they are missing."""
    folder = work / f"data-{Mixture.REVISION}"
    folder.mkdir(parents=True, exist_ok=True)
    base, queries, exact = (folder / f"{count}.{part}" for part in ("base", "queries", "exact"))
    mixture = Mixture()
    if not base.exists():
        say(f"making {count} vectors")
        with written(base) as path, open(path, "wb") as file:
            for start in range(0, count, mixture.CHUNK):
                # A seed for each chunk: a smaller size is the beginning of a larger one.
                rng = np.random.default_rng([mixture.SEED, 1, start])
                file.write(mixture.draw(rng, mixture.CHUNK)[: count - start].tobytes())
    rows = np.memmap(base, "<f4", "r", shape=(count, DIMS))
    if not queries.exists():
        rng = np.random.default_rng([mixture.SEED, 2, count])
        picked = np.array(rows[np.sort(rng.choice(count, QUERIES // 2, replace=False))])
        made = np.concatenate([mixture.near(rng, picked), mixture.draw(rng, QUERIES - QUERIES // 2)])
        with written(queries) as path:
            made[rng.permutation(QUERIES)].tofile(path)
    if not exact.exists():
        say(f"searching {count} vectors exactly")
        with written(exact) as path:
            exact_nearest(rows, np.fromfile(queries, "<f4").reshape(-1, DIMS)).tofile(path)
    return Vectors(count, base, queries, np.fromfile(exact, "<u4").reshape(-1, K))


def exact_nearest(rows, queries):
    """The K rows with the largest inner product, best first, by comparing with all rows."""
    best = np.full((len(queries), K), -np.inf, dtype=np.float32)
    ids = np.zeros((len(queries), K), dtype=np.uint32)
    for start in range(0, len(rows), Mixture.CHUNK):
        found = queries @ rows[start : start + Mixture.CHUNK].T
        k = min(K, found.shape[1])
        top = np.argpartition(-found, k - 1, axis=1)[:, :k]
        best = np.concatenate([best, np.take_along_axis(found, top, axis=1)], axis=1)
        ids = np.concatenate([ids, (top + start).astype(np.uint32)], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :K]
        best, ids = (np.take_along_axis(part, order, axis=1) for part in (best, ids))
    return ids


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@contextlib.contextmanager
def written(path):
    """A path to write to that becomes `path` once the block ends well."""
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    partial.replace(path)


# The peers, each as its users call it


class Hnswlib:
    def __init__(self):
        import hnswlib

        self.index = hnswlib.Index("ip", DIMS)

    def build(self, base, threads):
        self.index.init_index(len(base), M=M, ef_construction=EF_CONSTRUCTION)
        self.index.set_num_threads(threads)
        self.index.add_items(base)

    def search(self, queries, ef, threads):
        self.index.set_ef(ef)
        self.index.set_num_threads(threads)
        began = time.perf_counter()
        ids, _ = self.index.knn_query(queries, K)
        return time.perf_counter() - began, ids

    def save(self, path):
        self.index.save_index(path)

    def load(self, path):
        self.index.load_index(path)


class Faiss:
    def __init__(self):
        import faiss

        self.faiss = faiss
        self.index = faiss.IndexHNSWFlat(DIMS, M, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION

    def build(self, base, threads):
        self.faiss.omp_set_num_threads(threads)
        self.index.add(base)

    def search(self, queries, ef, threads):
        self.index.hnsw.efSearch = ef
        self.faiss.omp_set_num_threads(threads)
        began = time.perf_counter()
        _, ids = self.index.search(queries, K)
        return time.perf_counter() - began, ids

    def save(self, path):
        self.faiss.write_index(self.index, path)

    def load(self, path):
        self.index = self.faiss.read_index(path)


class Usearch:
    def __init__(self):
        from usearch.index import Index

        self.index = Index(
            ndim=DIMS, metric="ip", dtype="f32", connectivity=M, expansion_add=EF_CONSTRUCTION
        )

    def build(self, base, threads):
        self.index.add(np.arange(len(base)), base, threads=threads)

    def search(self, queries, ef, threads):
        self.index.expansion_search = ef
        began = time.perf_counter()
        matches = self.index.search(queries, K, threads=threads)
        return time.perf_counter() - began, matches.keys

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        self.index.load(path)


# Name -> the package on PyPI and its class.
PEERS = {"hnswlib": ("hnswlib", Hnswlib), "faiss": ("faiss-cpu", Faiss), "usearch": ("usearch", Usearch)}


def serve(name):
    """A peer's process: answers the commands above until `quit`."""
    # Answers go to what stdout is now; what a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer, grown, queries = PEERS[name][1](), 0, {}
    for line in sys.stdin:
        match line.split():
            case ["build", path, rows, dims, threads]:
                base = np.fromfile(path, "<f4", int(rows) * int(dims)).reshape(-1, int(dims))
                before, began = resident(), time.perf_counter()
                peer.build(base, int(threads))
                answer = [time.perf_counter() - began]
                grown = resident() - before
                del base
            case ["search", path, dims, ef, _, threads, out]:
                if path not in queries:
                    queries[path] = np.fromfile(path, "<f4").reshape(-1, int(dims))
                seconds, ids = peer.search(queries[path], int(ef), int(threads))
                ids.astype("<u4").tofile(out)
                answer = [seconds]
            case ["bytes"]:
                answer = [grown, 0]
            case ["rss"]:
                answer = [resident() // 1024]
            case ["save", path]:
                peer.save(path)
                answer = [0]
            case ["load", path, *_]:
                peer.load(path)
                answer = [0]
            case _:
                return
        print("ok", *answer, file=answers, flush=True)


def resident():
    """Bytes of this process in memory, without what the allocator holds but does not use."""
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# The driver


class Engine:
    """A running engine that holds one index."""

    def __init__(self, name, command, data):
        self.name, self.data = name, data
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, *words):
        """Sends a command and returns the numbers of its answer."""
        command = " ".join(map(str, words))
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline().split()
        except BrokenPipeError:
            answer = []
        if not answer or answer[0] != "ok":
            sys.exit(f"{self.name}: `{command}` was answered with `{' '.join(answer)}`")
        return [float(number) for number in answer[1:]]

    def search(self, ef, threads, out):
        """Seconds of one pass over all queries, as the engine measured them."""
        return self.ask("search", self.data.queries, DIMS, ef, K, threads, out)[0]

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("quit\n")
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()


@dataclass
class Entrant:
    """An engine with what was measured of it. Bytes are per vector, rounds are queries per second."""

    engine: Engine
    build_s: float
    index_bytes: float
    file_bytes: float
    resident_bytes: float
    ef: int = 0
    recall_1: float = 0.0
    recall_10: float = 0.0
    recalls: dict = field(default_factory=dict)
    rounds: dict = field(default_factory=dict)

    def choose_ef(self, threads, out):
        """Takes the smallest ef that is accurate enough, else the largest."""
        exact = self.engine.data.exact
        for ef in EFS:
            out.unlink(missing_ok=True)
            self.engine.search(ef, threads, out)
            found = np.fromfile(out, "<u4").reshape(len(exact), K)
            first = float((found[:, 0] == exact[:, 0]).mean())
            ten = float((found[:, :, None] == exact[:, None, :]).any(axis=1).mean())
            self.ef, self.recall_1, self.recall_10 = ef, first, ten
            self.recalls[ef] = [first, ten]
            if first >= RECALL_MIN:
                return
        say(f"{self.engine.name}: recall@1 stays below {RECALL_MIN}")

    def record(self):
        return {
            "engine": self.engine.name, "vectors": self.engine.data.count, "ef": self.ef,
            "recall_1": self.recall_1, "recall_10": self.recall_10, "recalls_by_ef": self.recalls,
            "build_s": self.build_s, "index_bytes_per_vector": self.index_bytes,
            "vector_file_bytes_per_vector": self.file_bytes,
            "resident_bytes_per_vector": self.resident_bytes,
            "queries_per_s": {f"ef {ef}, threads {threads}": qps for (ef, threads), qps in self.rounds.items()},
        }  # fmt: skip


def enter_ours(data, threads, closing):
    """Starts nearhit's engine and builds its index: it keeps none between runs."""
    engine = Engine(OURS, [str(Path(os.environ["NEARHIT_ENGINE"]).resolve()), "engine"], data)
    closing.callback(engine.close)
    say(f"{OURS}: building an index of {data.count}")
    (before,) = engine.ask("rss")
    (seconds,) = engine.ask("build", data.base, data.count, DIMS, threads)
    (after,) = engine.ask("rss")
    index, file = engine.ask("bytes")
    grown = (after - before) * 1024
    return Entrant(engine, seconds, index / data.count, file / data.count, grown / data.count)


def enter_peer(name, data, threads, work, closing):
    """Starts a peer with its index from `work`, built there by a process of its own if missing."""
    command = [sys.executable, __file__, "--peer", name]
    package = f"{name}-{importlib.metadata.version(PEERS[name][0])}"
    stem = f"{package}-data{Mixture.REVISION}-{data.count}-t{threads}"
    index, facts = work / f"{stem}.index", work / f"{stem}.json"
    if not (index.exists() and facts.exists()):
        say(f"{name}: building an index of {data.count}")
        builder = Engine(name, command, data)
        with contextlib.closing(builder):
            (seconds,) = builder.ask("build", data.base, data.count, DIMS, threads)
            grown, _ = builder.ask("bytes")
            with written(index) as path:
                builder.ask("save", path)
        with written(facts) as path:
            path.write_text(json.dumps({"build_s": seconds, "resident_bytes": grown}))
    engine = Engine(name, command, data)
    closing.callback(engine.close)
    engine.ask("load", index, data.count, DIMS)
    known = json.loads(facts.read_text())
    bytes_each = known["resident_bytes"] / data.count
    return Entrant(engine, known["build_s"], bytes_each, 0.0, bytes_each)


def measure(entrants, passes, rounds, out):
    """Every entrant once a round for each (ef or None for its own, threads), in a rotating order."""
    for number in range(rounds):
        shift = number % len(entrants)
        for ef, threads in passes:
            for entrant in entrants[shift:] + entrants[:shift]:
                time.sleep(PAUSE_S)
                seconds = entrant.engine.search(ef or entrant.ef, threads, out)
                entrant.rounds.setdefault((ef or "own", threads), []).append(QUERIES / seconds)


def ratios(upper, lower, passed=("own", 1), under=None):
    """The ratio of two entrants' queries per second, round by round."""
    return [a / b for a, b in zip(upper.rounds[passed], lower.rounds[under or passed], strict=True)]


def spread(numbers):
    return f"{statistics.median(numbers):.2f} ({min(numbers):.2f}-{max(numbers):.2f})"


def table(head, rows):
    """Prints rows of text as a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in [head, ["-" * width for width in widths], *rows]:
        first, *others = (cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        print("|", " | ".join([first, *others]), "|")


def compare(entrants, options, out):
    """All engines at one size, on 1 and 2 threads."""
    measure(entrants, [(None, 1), (None, 2)], options.rounds, out)
    rows = []
    for entrant in entrants:
        ours = entrant.engine.name == OURS
        memory = f"{entrant.index_bytes:.0f}"
        rows.append([
            entrant.engine.name, str(entrant.ef), f"{entrant.recall_1:.4f}", f"{entrant.recall_10:.4f}",
            f"{statistics.median(entrant.rounds['own', 1]):.0f}",
            "1" if ours else spread(ratios(entrants[0], entrant)),
            f"{statistics.median(entrant.rounds['own', 2]):.0f}",
            f"{statistics.median(ratios(entrant, entrant, ('own', 2), ('own', 1))):.2f}",
            f"{memory} + {entrant.file_bytes:.0f}" if ours else memory,
            f"{entrant.build_s:.1f}",
        ])  # fmt: skip
    table(
        ["engine", "ef", "recall@1", "recall@10", "QPS 1 thread", "ours/peer", "QPS 2 threads", "2/1",
         "bytes/vector", "build s"], rows,
    )  # fmt: skip
    print(
        f"{entrants[0].engine.data.count} vectors of {DIMS}, {QUERIES} queries, k={K}; medians of {options.rounds} "
        f"rounds, ours/peer: median of the rounds' ratios on 1 thread (min-max); built on {options.build_threads} "
        f"threads.\nMemory: peers: growth of the process, vectors included; {OURS}: index + file of the vectors "
        f"(process: {entrants[0].resident_bytes:.0f})."
    )


def growth(entrants, options, out):
    """The time of a search as the index grows, on 1 thread."""
    measure(entrants, [(None, 1), (FIXED_EF, 1)], options.rounds, out)
    rows, smaller = [], {}
    for entrant in entrants:
        row = [entrant.engine.name, str(entrant.engine.data.count), str(entrant.ef), f"{entrant.recall_1:.4f}"]
        for ef in ("own", FIXED_EF):
            row.append(f"{1e6 / statistics.median(entrant.rounds[ef, 1]):.1f}")
            before = smaller.get(entrant.engine.name)
            row.append(spread(ratios(before, entrant, (ef, 1))) if before else "")
        smaller[entrant.engine.name] = entrant
        rows.append(row)
    table(["engine", "vectors", "ef", "recall@1", "us/query", "x", f"us at ef {FIXED_EF}", "x"], rows)
    print(f"x: time over that at the size before, median of {options.rounds} rounds' ratios (min-max); 1 thread.")


def machine():
    """What the figures depend on besides the code."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    packages = [package for package, _ in PEERS.values()] + ["numpy"]
    return {
        "cpu": cpu[0].split(":", 1)[1].strip() if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "load_1_min": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {package: importlib.metadata.version(package) for package in packages},
    }


def say(text):
    print(text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description="Compares nearhit's index with others.")
    parser.add_argument("count", nargs="?", type=int, default=100_000, help="vectors; default 100000")
    parser.add_argument("--rounds", type=int, default=ROUNDS_MIN)
    parser.add_argument("--build-threads", type=int, default=min(2, os.cpu_count()))
    parser.add_argument("--growth", action="store_true", help="10k against 100k vectors, hnswlib only")
    parser.add_argument("--million", action="store_true", help="with --growth: 1M vectors as well")
    parser.add_argument("--alone", action="store_true", help="with --growth: without hnswlib")
    parser.add_argument("--out", type=Path, help="write all rounds here as JSON")
    parser.add_argument("--work", type=Path, help="folder of what is kept between runs")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return serve(options.peer)
    if options.work is None or options.rounds < ROUNDS_MIN or options.count < K or options.count < QUERIES // 2:
        parser.error(f"needs --work, at least {ROUNDS_MIN} rounds and {QUERIES // 2} vectors")

    work, threads = options.work.resolve(), options.build_threads
    sizes = [10_000, 100_000] + [1_000_000] * options.million if options.growth else [options.count]
    peers = (["hnswlib"] * (not options.alone)) if options.growth else list(PEERS)
    out = work / "found.u32"
    before = machine()
    with contextlib.ExitStack() as closing:
        datas = [vectors(work, size) for size in sizes]
        # Peers first: their builds must not share the machine with an index of ours that settles.
        others = [enter_peer(peer, data, threads, work, closing) for peer in peers for data in datas]
        entrants = [enter_ours(data, threads, closing) for data in datas] + others
        for entrant in entrants:
            entrant.choose_ef(threads, out)
        (growth if options.growth else compare)(entrants, options, out)
        if options.out:
            record = {
                "machine": before, "load_1_min_after": os.getloadavg()[0], "k": K, "queries": QUERIES,
                "build_threads": threads, "data_revision": Mixture.REVISION,
                "engines": [entrant.record() for entrant in entrants],
            }  # fmt: skip
            options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
