"""Mutated files against every reader: a value or one sentence, nothing else, soon, and without growing.

    python benchmarks/fuzz.py [--inputs 1000000] [--seed 0] [--keep FOLDER] [--out docs/figures/fuzz.json]

The readers: safetensors weights (fpjax's and the kernel's), model cards, certificates, study files, images. Each input is a
good file with one to eight mutations: bits flipped, bytes replaced by nasty ones or noise, pieces cut, doubled, swapped or
taken from another file, numbers replaced by huge ones. Everything follows from the seed, and an input is named by its
number, so that a finding can be had again: ``--only READER --number N``.

A crash is any exception other than the reader's own error (or a message of more than one line); a hang is more than HANG_S
seconds of processor time for one input; memory may grow by GROWTH_BYTES between the first tenth of the inputs and the end.
A crash of the interpreter itself ends the child process that reads, and counts.
"""

import argparse
import faulthandler
import hashlib
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HANG_S = 5.0
GROWTH_BYTES = 64 << 20
SHARES = {"image": 16, "weights": 36, "kernel-weights": 36, "study": 6, "certificate": 4, "card": 2}  # per cent
NASTY = [
    b"\x00",
    b"\xff",
    b"\x7f",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"-",
    b"0",
    b"e",
    b"null",
    b"true",
    b"NaN",
]
NUMBERS = [
    b"0",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"9" * 40,
    b"-0.0",
    b"0.1",
    b"4294967296",
    b"null",
    b'"x"',
    b"[]",
]


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """One good file with some damage."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        at = rng.randrange(len(data) + 1)
        near = min(at, rng.randrange(1 + min(len(data), 256)))  # headers are where the decisions are
        at = near if rng.random() < 0.5 else at
        size = rng.choice([1, 1, 2, 4, 8, 64, 1024])
        kind = rng.randrange(9)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + 1] = rng.choice(NASTY)
        elif kind == 2:
            data[at : at + size] = rng.randbytes(size)
        elif kind == 3:
            del data[at : at + size]
        elif kind == 4:
            data[at:at] = data[at : at + size] * rng.choice([1, 2, 16])
        elif kind == 5:
            other = rng.choice(seeds)
            start = rng.randrange(len(other))
            data[at : at + size] = other[start : start + size]
        elif kind == 6:
            del data[rng.randrange(len(data) + 1) :]
        elif kind == 7:
            _number(rng, data, at)
        else:
            data[at:at] = rng.choice([b"[" * 3000, b"{" * 50, b"\xef\xbb\xbf", b"\n", b"\x00" * 8])
    return bytes(data)


def _number(rng: random.Random, data: bytearray, at: int) -> None:
    """Replaces the next run of digits."""
    start = next((i for i in range(at, min(at + 200, len(data))) if 48 <= data[i] <= 57), None)
    if start is not None:
        end = next((i for i in range(start, len(data)) if not 48 <= data[i] <= 57), len(data))
        data[start:end] = rng.choice(NUMBERS)


# --- the readers ---------------------------------------------------------------------------------------------------------


def reader(name: str, folder: Path) -> tuple[Callable[[bytes], object], list[bytes], tuple]:
    """(reader of bytes, good files, its own errors)."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    return {
        "weights": _weights, "kernel-weights": _kernel_weights, "card": _card, "certificate": _certificate,
        "study": _study, "image": _image,
    }[name](folder)  # fmt: skip


def _small() -> bytes:
    import numpy as np
    from safetensors.numpy import save

    tensors = {"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float64), "c": np.ones((1, 1, 2, 2), np.float32)}
    return save(tensors)


def _weights(folder: Path):
    from fpjax.evidence import FpjaxError
    from fpjax.models import store

    path = folder / "m.safetensors"

    def read(raw: bytes):
        path.write_bytes(raw)
        return store.read_weights(
            path.with_suffix(".json"), {"weights": path.name, "sha256": hashlib.sha256(raw).hexdigest()}
        )

    return (
        read,
        [_small(), store.card_path("digits-plain").with_suffix(".safetensors").read_bytes()[:4000]],
        (FpjaxError,),
    )


def _kernel_weights(_):
    from fpjax.certify import reading

    return reading.read_tensors, [_small()], (reading.CertificateError,)


def _card(folder: Path):
    from fpjax.evidence import FpjaxError
    from fpjax.models import store

    path = folder / "digits-plain.json"
    for file in store.WEIGHTS.glob("digits-*.safetensors"):
        shutil.copy(file, folder)

    def read(raw: bytes):
        path.write_bytes(raw)
        return store.load(path)

    names = ("digits-plain", "digits-monotone", "digits-tree")
    return read, [store.card_path(name).read_bytes() for name in names], (FpjaxError,)


def _certificate(folder: Path):
    """The gallery of the tests: one certificate of every kind, for models so small that a proof takes milliseconds. Every
    second input that is still JSON is sealed anew, so that damage gets past the seal to the prover."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "certify"))
    import certify_gallery

    from fpjax.certify.check import check_data
    from fpjax.certify.reading import CertificateError, load_json, seal

    good = [json.dumps(data).encode() for _, data, _ in certify_gallery.valid(certify_gallery.models(folder))]

    def read(raw: bytes):
        data = load_json(raw, "certificate")
        return check_data(seal(data) if raw[len(raw) // 2] % 2 else data, folder, limit_s=2.0)

    return read, good, (CertificateError,)


def _study(_):
    from fpjax import study
    from fpjax.evidence import FpjaxError

    text = (
        b'models = ["digits-monotone", "digits-plain"]\nguidance = [1.0, 3.0]\nseeds = [0, 1]\n[[process]]\nkind = "ddim"\n'
        b'steps = [2, 5]\n[images]\ndata = "digits"\ncount = 10\nbatch = 4\n[budget]\ncell_s = 60.5\ntries = 3\n'
    )
    return lambda raw: study.parse(raw.decode("utf-8", "replace")), [text], (FpjaxError,)


def _image(_):
    from fpjax import images
    from fpjax.evidence import FpjaxError

    return images.decode, _images(), (FpjaxError,)


def _images() -> list[bytes]:
    import io

    import numpy as np
    from PIL import Image

    rng, out = np.random.default_rng(0), []

    def add(array, kind, mode=None, **options):
        image, file = Image.fromarray(array), io.BytesIO()
        (image.convert(mode) if mode else image).save(file, kind, **options)
        out.append(file.getvalue())

    grey = rng.integers(0, 256, (9, 7), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    add(grey, "PNG")
    add(rng.integers(0, 65536, (5, 6), dtype=np.uint16), "PNG")
    add(rng.integers(0, 256, (6, 5, 4), dtype=np.uint8), "PNG")
    add(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8), "PNG", "P")
    add(rng.integers(0, 256, (16, 9, 3), dtype=np.uint8), "JPEG", exif=exif)
    add(grey, "JPEG", progressive=True)
    return out


# --- counting ----------------------------------------------------------------------------------------------------------


def input_of(name: str, number: int, seed: int, seeds: list[bytes]) -> bytes:
    """The input with this number."""
    return mutated(random.Random(f"{seed}/{name}/{number}"), seeds)


def rss_bytes() -> int:
    fields = dict(x.split(":", 1) for x in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields["VmRSS"].split()[0])


def fuzz(name: str, count: int, seed: int, keep: Path | None, at=None) -> dict:
    """Reads ``count`` inputs in this process."""
    faulthandler.enable()
    memory = Path("/dev/shm")  # files that are read once need no disk
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        read, seeds, own = reader(name, Path(folder))
        found = {"inputs": 0, "accepted": 0, "crashes": [], "slowest_s": 0.0, "first_rss": 0, "last_rss": 0}
        for number in range(count):
            if at is not None:
                at.value = number
            raw = input_of(name, number, seed, seeds)
            start = time.process_time()
            try:
                read(raw)
                found["accepted"] += 1
            except own as told:
                if "\n" in str(told).strip():
                    found["crashes"].append((number, f"more than one line: {told}"[:300]))
            except BaseException as error:
                found["crashes"].append((number, f"{type(error).__name__}: {error}"[:300]))
                if keep is not None:
                    (keep / f"{name}-{seed}-{number}").write_bytes(raw)
            spent = time.process_time() - start
            found["slowest_s"] = max(found["slowest_s"], spent)
            if spent > HANG_S:
                found["crashes"].append((number, f"took {spent:.1f} s"))
            found["inputs"] += 1
            if number == count // 10:
                found["first_rss"] = rss_bytes()
        found["last_rss"] = rss_bytes()
    return found


def _child(name, count, seed, keep, at, pipe) -> None:
    pipe.send(fuzz(name, count, seed, keep, at))


def apart(name: str, count: int, seed: int, keep: Path | None) -> dict:
    """The same in a process of its own, whose death is a finding."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    at = spawn.Value("q", -1)
    process = spawn.Process(target=_child, args=(name, count, seed, keep, at, theirs))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        process.join()
        crash = (at.value, f"the interpreter died with {process.exitcode}")
        found = {
            "inputs": at.value + 1,
            "accepted": 0,
            "crashes": [crash],
            "slowest_s": 0.0,
            "first_rss": 0,
            "last_rss": 0,
        }
    process.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that crash")
    parser.add_argument("--only", choices=SHARES)
    parser.add_argument("--number", type=int, help="print this input of --only")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.number is not None:
        with tempfile.TemporaryDirectory() as folder:
            seeds = reader(options.only, Path(folder))[1]
            sys.stdout.buffer.write(input_of(options.only, options.number, options.seed, seeds))
        return 0
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    found, good = {}, True
    for name in [options.only] if options.only else SHARES:
        count = -(-options.inputs * (100 if options.only else SHARES[name]) // 100)
        f = found[name] = apart(name, count, options.seed, options.keep)
        growth = f["last_rss"] - f["first_rss"]
        good = good and not f["crashes"] and growth <= GROWTH_BYTES and f["inputs"] == count
        print(
            f"{name}: {f['inputs']} inputs, {f['accepted']} accepted, {len(f['crashes'])} findings, slowest "
            f"{f['slowest_s']:.3f} s, memory {growth / 2**20:+.1f} MiB", flush=True,
        )  # fmt: skip
        for number, what in f["crashes"][:5]:
            print(f"  {name} {number}: {what}", flush=True)
    total = sum(f["inputs"] for f in found.values())
    print(f"{total} inputs in all: {'nothing found' if good else 'FINDINGS'}")
    if options.out:
        options.out.write_text(json.dumps({"inputs": total, "readers": found}, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
