"""Compares nearhit's forward with onnxruntime, torch and candle's own, on the same token ids.

Every engine is a process of its own that reads commands from stdin, one a
line, and answers each with a line on stdout. Ours, and candle's, is the
executable in the variable NEARHIT_ENGINE; a peer's is this script run as
`embed.py --peer NAME`. Each times itself, in time that its thread ran: what
other work took of the core is in nobody's figure.

    load PRECISION FAMILY       ok MILLISECONDS KILOBYTES      ours only
    embed LENGTH TIMES          ok MILLISECONDS                median, one text
    batch LENGTH COUNT TIMES    ok MILLISECONDS                median, for one text of the batch
    head LENGTH                 ok NUMBER...                   the unit vector
    peak, stream BYTES          ok GFLOPS, ok GB_PER_S         ours only
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

LENGTHS = (8, 16, 32, 64, 128, 256)
BATCHES = (8, 32)
# Of the encoder's matrices: 6 layers of 4 * 384 * 384 + 2 * 384 * 1536.
WEIGHTS = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
BYTES = {"f32": 4, "bf16": 2, "int8": 1}
OURS = ["f32 avx2", "f32 avx512", "f32 neon", "bf16 avx512", "bf16 amx", "int8 avx2", "int8 avx512", "int8 amx"]


# The peers


def unit(vector):
    norm = sum(value * value for value in vector) ** 0.5
    return [float(value / norm) for value in vector]


def tensors(model):
    import numpy as np
    from safetensors.numpy import load_file

    loaded = load_file(model / "model.safetensors").items()
    return {name: values.astype(np.float32) if values.dtype == np.float16 else values for name, values in loaded}


def make_onnx(model, work):
    """The graph as onnxruntime's own optimiser leaves it: attention fused, GELU and LayerNorm single nodes."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic

    weights = tensors(model)
    initial, nodes = [], []

    def constant(name, values):
        initial.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(kind, inputs, output, domain="", **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def norm(rows, part, output):
        # Names that end in _scale are the quantiser's.
        gain, shift = (constant(output + word, weights[part + kind]) for word, kind in [("_gain", ".weight"), ("_shift", ".bias")])
        return node("LayerNormalization", [rows, gain, shift], output, axis=-1, epsilon=1e-12)

    def linear(rows, part, output):
        product = node("MatMul", [rows, constant(output + "_weight", weights[part + ".weight"].T)], output + "_product")
        return node("Add", [product, constant(output + "_bias", weights[part + ".bias"])], output)

    def whole(name, value):
        return constant(name, np.array([value], dtype=np.int64))

    words = node("Gather", [constant("words", weights["embeddings.word_embeddings.weight"]), "ids"], "looked_up")
    types = weights["embeddings.token_type_embeddings.weight"][0]
    positions = constant("positions", weights["embeddings.position_embeddings.weight"] + types)
    length = node("Slice", [node("Shape", ["ids"], "shape"), whole("one", 1), whole("two", 2)], "length")
    placed = node("Slice", [positions, whole("zero", 0), length, whole("axis", 0)], "placed")
    rows = norm(node("Add", [words, placed], "summed"), "embeddings.LayerNorm", "embedded")
    for n in range(6):
        layer, own = f"encoder.layer.{n}.", f"layer{n}_"
        parts = [layer + "attention.self." + part for part in ("query", "key", "value")]
        qkv = constant(own + "qkv", np.concatenate([weights[part + ".weight"].T for part in parts], 1))
        bias = constant(own + "qkv_bias", np.concatenate([weights[part + ".bias"] for part in parts]))
        attended = node("Attention", [rows, qkv, bias], own + "attention", "com.microsoft", num_heads=12)
        attended = linear(attended, layer + "attention.output.dense", own + "attended")
        rows = norm(node("Add", [attended, rows], own + "first"), layer + "attention.output.LayerNorm", own + "middle")
        inner = node("Gelu", [linear(rows, layer + "intermediate.dense", own + "inner")], own + "gelu")
        outer = linear(inner, layer + "output.dense", own + "outer")
        rows = norm(node("Add", [outer, rows], own + "second"), layer + "output.LayerNorm", own + "end")
    mean = node("ReduceMean", [rows, whole("tokens", 1)], "mean", keepdims=0)
    node("LpNormalization", [mean], "vector", axis=1, p=2)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])
    vector = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", 384])
    graph = helper.make_graph(nodes, "bert", [ids], [vector], initial)
    versions = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=10), work / "f32.onnx")
    for name, kinds in [("int8-attention", ["MatMul", "Attention"]), ("int8", ["MatMul"])]:
        quantize_dynamic(
            work / "f32.onnx",
            work / f"{name}.onnx",
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=kinds,
            extra_options={"DefaultTensorType": 1},
        )


def onnx_forward(file):
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda texts: session.run(None, {"ids": np.array(texts, dtype=np.int64)})[0]


def torch_forward(model):
    """Plain torch, without the transformers package: its fastest functions in the order of the model."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    weights = {name: torch.from_numpy(values) for name, values in tensors(model).items()}

    def linear(rows, part):
        return functional.linear(rows, weights[part + ".weight"], weights[part + ".bias"])

    def norm(rows, part):
        return functional.layer_norm(rows, (384,), weights[part + ".weight"], weights[part + ".bias"], 1e-12)

    def forward(texts):
        with torch.inference_mode():
            ids = torch.tensor(texts)
            count, length = ids.shape
            rows = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.position_embeddings.weight"][:length]
            rows = norm(rows + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
            for n in range(6):
                layer = f"encoder.layer.{n}."
                parts = [linear(rows, layer + "attention.self." + part) for part in ("query", "key", "value")]
                heads = [part.view(count, length, 12, 32).transpose(1, 2) for part in parts]
                attended = functional.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(count, length, 384)
                rows = norm(linear(attended, layer + "attention.output.dense") + rows, layer + "attention.output.LayerNorm")
                inner = functional.gelu(linear(rows, layer + "intermediate.dense"))
                rows = norm(linear(inner, layer + "output.dense") + rows, layer + "output.LayerNorm")
            return functional.normalize(rows.mean(1)).numpy()

    return forward


def be_peer(name, model, work):
    forward = torch_forward(model) if name == "torch f32" else onnx_forward(work / f"{name.split()[1]}.onnx")

    def median(texts, times):
        taken = []
        for _ in range(times):
            started = time.thread_time_ns()
            forward(texts)
            taken.append((time.thread_time_ns() - started) / 1e6)
        return statistics.median(taken)

    for line in sys.stdin:
        match line.split():
            case ["embed", length, times]:
                answer = median([ids(int(length))], int(times))
            case ["batch", length, count, times]:
                answer = median([ids(int(length))] * int(count), int(times)) / int(count)
            case ["head", length]:
                answer = " ".join(map(str, unit(forward([ids(int(length))])[0])))
            case _:
                break
        print("ok", answer, flush=True)


def ids(length):
    return [1000 + 37 * n for n in range(length)]


# The comparison


class Engine:
    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def answer(self):
        kind, _, rest = self.process.stdout.readline().strip().partition(" ")
        return [float(number) for number in rest.split()] if kind == "ok" else None

    def ask(self, *words):
        self.send(*words)
        return self.answer()

    def quit(self):
        self.send("quit")
        self.process.wait()


def open_engines(args):
    """Every engine of this machine, loaded; what each of ours took to load."""
    own, loads = [], {}
    wanted = args.engines.split(",") if args.engines else OURS
    for name in [*wanted, "f32 candle"]:
        engine = Engine(name, [os.environ["NEARHIT_ENGINE"], "engine"])
        took = engine.ask("load", *name.split())
        if took is None:
            engine.quit()
            continue
        loads[name] = {"milliseconds": took[0], "kilobytes": took[1]}
        own.append(engine)
    peers = ["onnxruntime f32", "onnxruntime int8", "onnxruntime int8-attention"]
    if importlib.util.find_spec("torch"):
        peers.append("torch f32")
    command = [sys.executable, __file__, "--work", args.work, "--model", args.model, "--peer"]
    return own + [Engine(name, [*command, name]) for name in peers], loads


def measure(args):
    engines, loads = open_engines(args)
    gauge = engines[0]
    vectors = {engine.name: engine.ask("head", 32) for engine in engines}
    reference = vectors["f32 candle"]
    cosines = {name: sum(a * b for a, b in zip(vector, reference)) for name, vector in vectors.items()}
    rounds = []
    for number in range(args.rounds):
        peak = gauge.ask("peak")[0]
        streams = {name: gauge.ask("stream", WEIGHTS * size)[0] for name, size in BYTES.items()}
        row = {"peak": peak, "stream": streams, "one": {}, "batch": {}}
        # Neighbours in time, in an order that changes: other work on the machine moves them together.
        order = engines[number % len(engines) :] + engines[: number % len(engines)]
        for length in LENGTHS:
            for engine in order:
                # What ran before has pushed this one's weights out of the caches.
                engine.ask("embed", 8, 1)
                taken = engine.ask("embed", length, max(3, 128 // length))
                row["one"].setdefault(engine.name, {})[length] = taken[0]
        for engine in order:
            for count in BATCHES:
                taken = engine.ask("batch", 32, count, 1)
                if taken:
                    row["batch"].setdefault(engine.name, {})[count] = taken[0]
        rounds.append(row)
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
    pairs = together(args, engines)
    for engine in engines:
        engine.quit()
    return {"machine": machine(), "loads": loads, "cosine_to_candle_at_32": cosines, "pairs": pairs, "rounds": rounds}


def together(args, engines):
    """Two workers at a time: what each takes for a text of 32 tokens, and what is left of the peak."""
    rows = {}
    for first in engines:
        if first.name not in OURS:
            continue
        second = Engine(first.name, [os.environ["NEARHIT_ENGINE"], "engine"])
        second.ask("load", *first.name.split())
        ratios, peaks = [], []
        for _ in range(max(3, args.rounds // 3)):
            for words, into in [(("embed", 32, 60), ratios), (("peak",), peaks)]:
                alone = first.ask(*words)[0]
                for engine in (first, second):
                    engine.send(*words)
                pair = [engine.answer()[0] for engine in (first, second)]
                # A time for a text, or a speed: both as work done by two over work done by one.
                speed = sum(alone / taken for taken in pair) if into is ratios else sum(pair) / alone
                into.append(speed)
        rows[first.name] = {"texts": statistics.median(ratios), "peak": statistics.median(peaks)}
        second.quit()
    return rows


def machine():
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    return {"processor": model, "cores": os.cpu_count(), "load": os.getloadavg(), "system": platform.platform()}


def over_rounds(run, value):
    return statistics.median(value(row) for row in run["rounds"])


def show(run):
    rounds = run["rounds"]
    names = list(rounds[0]["one"])
    peak, streams = over_rounds(run, lambda row: row["peak"]), {
        name: over_rounds(run, lambda row, name=name: row["stream"][name]) for name in BYTES
    }
    print(f"{run['machine']}\n{len(rounds)} rounds, medians, one thread, thread time")
    print(f"peak {peak:.0f} GFLOP/s f32; stream " + ", ".join(f"{n} {s:.1f} GB/s" for n, s in streams.items()))
    print("\nmilliseconds a text (share of the limit)\n")
    print("| engine | " + " | ".join(f"{length} tokens" for length in LENGTHS) + " | in a batch of 8, 32 | cosine |")
    print("|---" * (len(LENGTHS) + 3) + "|")
    for name in names:
        cells = []
        for length in LENGTHS:
            taken = over_rounds(run, lambda row: row["one"][name][length])
            cells.append(f"{taken:.2f}" + (f" ({100 * limit(run, name, length):.0f} %)" if name in OURS else ""))
        batch = [f"{over_rounds(run, lambda row: row['batch'][name][count]):.2f}" for count in BATCHES if name in rounds[0]["batch"]]
        print(f"| {name} | {' | '.join(cells)} | {', '.join(batch)} | {run['cosine_to_candle_at_32'][name]:.6f} |")
    print("\ntimes as fast as (median of the rounds' ratios)\n")
    print("| ours | peer | " + " | ".join(f"{length} tokens" for length in LENGTHS) + " |")
    print("|---" * (len(LENGTHS) + 2) + "|")
    for name in (name for name in names if name in OURS):
        peers = ["onnxruntime f32", "f32 candle", "torch f32"] + ["onnxruntime's better int8"] * name.startswith("int8")
        for peer in peers:
            if peer in names or peer.endswith("int8"):
                ratios = [over_rounds(run, lambda row: of(row, peer, n) / row["one"][name][n]) for n in LENGTHS]
                print(f"| {name} | {peer} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    print("\n| ours | load and pack | memory of the model | two workers / one | two peaks / one |\n|---|---|---|---|---|")
    for name, pair in run["pairs"].items():
        load = run["loads"][name]
        cells = f"{load['milliseconds']:.0f} ms | {load['kilobytes'] / 1024:.1f} MiB"
        print(f"| {name} | {cells} | {pair['texts']:.2f} | {pair['peak']:.2f} |")


def of(row, peer, length):
    if peer.endswith("int8") and "'" in peer:
        return min(taken[length] for name, taken in row["one"].items() if name.startswith("onnxruntime int8"))
    return row["one"][peer][length]


def limit(run, name, length):
    """The share of what the machine could do: its bytes at the speed of reading, or for f32 its sums at the peak."""
    precision = name.split()[0]

    def share(row):
        reading = WEIGHTS * BYTES[precision] / row["stream"][precision] / 1e6
        computing = 2 * WEIGHTS * length / row["peak"] / 1e6 if precision == "f32" else 0.0
        return max(reading, computing) / row["one"][name][length]

    return over_rounds(run, share)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--engines", help="ours, by name, separated by commas; all of this machine's if not given")
    parser.add_argument("--out", help="every round as JSON")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    work, model = Path(args.work), Path(args.model)
    if args.peer:
        return be_peer(args.peer, model, work)
    if not (work / "int8.onnx").exists():
        make_onnx(model, work)
    run = measure(args)
    if args.out:
        Path(args.out).write_text(json.dumps(run, indent=1))
    return show(run)


if __name__ == "__main__":
    main()
