"""Tampering and hostile input: rejected with a reason, quickly, in little memory, and never by a crash."""

# ruff: noqa: PT017, PT018

import copy
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import certify_gallery as gallery
import certify_hostile as hostile
import certify_zoo as zoo
import numpy as np
import pytest

import fpjax.certify.check as kernel


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    return gallery.valid(gallery.models(tmp_path_factory.mktemp("gallery")))


def reason(data, card) -> str | None:
    """Why the kernel rejects it, or None. Takes under 5 s of processor time and raises nothing but CertificateError."""
    start = time.process_time()
    try:
        kernel.check_data(data, card)
    except kernel.CertificateError as error:
        assert str(error)
        assert time.process_time() - start < 5
        return str(error)
    return None


def leaves(node, path=()):
    """Every path of a JSON value, inner nodes included."""
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from leaves(value, (*path, key))


def replaced(data, path, value, delete=False):
    new = copy.deepcopy(data)
    node = new
    for key in path[:-1]:
        node = node[key]
    if delete:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return new


def at(data, path):
    for key in path:
        data = data[key]
    return data


WRONG = [
    None,
    True,
    -1,
    10**400,
    "",
    "x",
    "nan",
    "inf",
    "-inf",
    "0x1p+99999999",
    "0x1p5",
    "0x1.0p+0 ",
    "1.5",
    [],
    {},
    [[]],
]


def neighbours(value):
    """Values of the same type that say something else."""
    if isinstance(value, str) and value.startswith(("0x", "-0x")):
        v = float.fromhex(value)
        return [float(np.nextafter(v, np.inf)).hex(), (v * 0.5 + 0.125).hex(), (-v - 1.0).hex()]
    if isinstance(value, str):
        return [value + "0", value[:-1], value.swapcase() if value.swapcase() != value else "everywhere2"]
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, list) and value:
        return [value[:-1], [*value, value[0]]]
    return []


def test_every_single_field_is_sealed(entries):
    """Each field replaced by a neighbour, a wrong type or nothing, the seal left alone: rejected, with a reason."""
    count = 0
    for name, data, card in entries:
        for path in leaves(data):
            old = at(data, path)
            changed = [
                v for v in [*neighbours(old), WRONG[count % len(WRONG)], WRONG[(count + 5) % len(WRONG)]] if v != old
            ]
            for new in [replaced(data, path, v) for v in changed] + [replaced(data, path, None, delete=True)]:
                count += 1
                assert reason(new, card), (name, path)
    print(f"\ntampering: {count} single-field mutations, all rejected")
    assert count >= 2000


def test_a_new_seal_does_not_help_a_broken_format(entries):
    """Each field replaced by what the format does not allow, with a fresh seal: rejected for that, not by accident."""
    count = 0
    for name, data, card in entries:
        for path in leaves({k: v for k, v in data.items() if k != "seal"}):
            old = at(data, path)
            for value in WRONG:
                if (value == old and type(value) is type(old)) or allowed(path, value):
                    continue
                count += 1
                why = reason(kernel.seal(replaced(data, path, value)), card)
                assert why and "broke off" not in why and "seal" not in why, (name, path, value, why)
            if not isinstance(path[-1], int):
                assert reason(kernel.seal(replaced(data, path, None, delete=True)), card), (name, path)
                assert reason(kernel.seal(replaced(data, (*path[:-1], "extra"), 1)), card), (name, path)
    print(f"\ntampering: {count} resealed format mutations, all rejected")
    assert count >= 2000


def allowed(path, value) -> bool:
    """Whether a value of WRONG is within the format at this path (a bound may be absent, A may be left out)."""
    return value is None and path[-1] in ("contraction", "modulus", "lipschitz", "preconditioner", "factor")


def test_a_new_seal_cannot_make_a_false_statement_true(entries):
    """Resealed neighbours are either rejected or true: a wider ball, a smaller claim. Those accepted are re-judged.

    Of a proof only what is free may change: any A and any multipliers >= 0 that verify prove the same claim.
    """
    free, accepted, rejected = ("preconditioner", "multipliers"), 0, 0
    for name, data, card in entries:
        for path in leaves({"claim": data["claim"], "proof": data["proof"]}):
            for value in neighbours(at(data, path)):
                new = kernel.seal(replaced(data, path, value))
                why = reason(new, card)
                if why is None:
                    accepted += 1
                    said = kernel.check_data(new, card)
                    assert said.statement
                    if path[0] == "proof":
                        assert path[1] in free, (name, path, value)
                        assert said == kernel.check_data(data, card), (name, path, value)
                else:
                    rejected += 1
                    assert "broke off" not in why, (name, path, value, why)
    print(f"\ntampering: {rejected} resealed neighbours rejected, {accepted} still true as changed")
    assert rejected > accepted > 0


def test_every_byte_region_of_the_weights(entries, tmp_path):
    """One bit flipped anywhere: rejected, also where the card's hash is updated to match."""
    _, data, card = next(e for e in entries if e[0] == "step monotone")
    raw, text = card.with_suffix(".safetensors").read_bytes(), json.loads(card.read_text())
    weights, copy_card = tmp_path / card.with_suffix(".safetensors").name, tmp_path / card.name
    for i in range(0, len(raw), max(1, len(raw) // 400)):
        bad = bytearray(raw)
        bad[i] ^= 1 << (i % 8)
        weights.write_bytes(bad)
        copy_card.write_text(json.dumps(text))
        assert reason(data, copy_card) == "the weights do not have the SHA-256 that the model card states"
        copy_card.write_text(json.dumps({**text, "sha256": hashlib.sha256(bad).hexdigest()}))
        assert reason(data, copy_card)
    for end in range(0, len(raw), max(1, len(raw) // 40)):
        weights.write_bytes(raw[:end])
        copy_card.write_text(json.dumps({**text, "sha256": hashlib.sha256(raw[:end]).hexdigest()}))
        why = reason(data, copy_card)
        assert why
        assert "broke off" not in why


def test_swapped_models_and_edited_programs(entries):
    cards = {card for _, _, card in entries}
    for name, data, card in entries[::3]:
        for other in cards - {card}:
            assert "another name" in str(reason(data, other)), name
    _, data, card = next(e for e in entries if e[0] == "step monotone")
    text = card.read_text()
    try:
        for old, new in (
            ("silu", "tanh"),
            ('"data_std": 0.5', '"data_std": 0.25'),
            ('"which": "in"', '"which": "out"'),
        ):
            assert old in text
            card.write_text(text.replace(old, new))
            assert reason(data, card) == "the certificate is for another program of layers"
    finally:
        card.write_text(text)
    assert reason(data, card) is None
    for name in ("../mixture", "a/b", "", "x" * 200, 5, None, "nul\0"):
        why = reason(kernel.seal(replaced(data, ("model", "name"), name)), card.parent)
        assert why
        assert "broke off" not in why


def test_truncated_certificates(entries, tmp_path):
    _, data, card = entries[3]
    raw = json.dumps(data).encode()
    for end in range(0, len(raw), 7):
        (tmp_path / "c.json").write_bytes(raw[:end])
        with pytest.raises(kernel.CertificateError):
            kernel.check(tmp_path / "c.json", card)


def test_the_harmless_model_behind_the_hostile_ones_is_accepted(tmp_path):
    data, card = hostile.model(tmp_path)
    assert reason(data, card) == "Y + ||A|| slack + Z r <= r was not proved"


@pytest.mark.parametrize("name", hostile.WEIGHTS)
def test_hostile_weights(tmp_path, name):
    assert hostile.REASONS[name] in str(reason(*hostile.model(tmp_path, hostile.WEIGHTS[name])))


@pytest.mark.parametrize("name", hostile.LAYERS)
def test_hostile_layers(tmp_path, name):
    assert hostile.REASONS[name] in str(reason(*hostile.model(tmp_path, layers=hostile.LAYERS[name])))


@pytest.mark.parametrize("name", hostile.CARDS)
def test_hostile_cards(tmp_path, name):
    assert hostile.REASONS[name] in str(reason(*hostile.model(tmp_path, **hostile.CARDS[name])))


@pytest.mark.parametrize("name", hostile.FILES)
def test_hostile_files(entries, tmp_path, name):
    (tmp_path / "c.json").write_bytes(hostile.FILES[name])
    with pytest.raises(kernel.CertificateError) as error:
        kernel.check(tmp_path / "c.json", entries[0][2])
    assert hostile.REASONS[name] in str(error.value)


def test_hostile_files_in_bounded_memory(entries, tmp_path):
    """One process, 1.5 GiB of address space, every hostile file: one REJECTED line each and no word on stderr."""
    _, data, card = entries[0]
    files = dict(hostile.FILES)
    files["lone surrogate inside"] = json.dumps({**data, "kind": "\ud800"}).encode()
    for i, (_, raw) in enumerate(files.items()):
        (tmp_path / f"{i}.json").write_bytes(raw)
    names = [str(tmp_path / f"{i}.json") for i in range(len(files))] + [str(tmp_path), str(tmp_path / "missing")]
    room = Path(kernel.__file__)

    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, (3 << 29, 3 << 29)); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(room), *names, "--model", str(card)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path)
    assert run.returncode == 1 and not run.stderr, run.stderr[-500:]
    assert run.stdout.count("REJECTED") == len(names) == len(run.stdout.splitlines())


def test_work_is_bounded_by_the_time_limit(entries, tmp_path):
    """A box that cannot be decided and a certificate of many steps end at the limit, with a reason."""
    _, data, card = next(e for e in entries if e[0] == "no solution 2d")
    data = copy.deepcopy(data)
    data["claim"]["target"] = [(0.1).hex(), (0.1).hex()]
    start = time.process_time()
    with pytest.raises(kernel.CertificateError, match=r"time limit|not proved"):
        kernel.check_data(kernel.seal(data), card, 0.2)
    assert time.process_time() - start < 2
    rng = np.random.default_rng(0)
    big = {"W": rng.standard_normal((64, 400)), "V": rng.standard_normal((400, 400))}
    layers = [{"op": "affine_t", "out": "h0", "in": "y", "weight": "W"}]
    for i in range(40):
        layers.append({"op": "affine", "out": f"h{i + 1}", "in": f"h{i}", "weight": "V"})
    layers.append({"op": "affine", "out": "D", "in": "h40", "weight": "W"})
    big_card = zoo.write(tmp_path, "big", layers, big, (64,))
    levels = zoo.hexes(np.linspace(0.1, 1, 50))
    heavy = zoo.certificate(big_card, "structure", {"levels": levels, "conditions": [0], "guidance": (1.0).hex()}, {})
    start = time.process_time()
    with pytest.raises(kernel.CertificateError, match=r"time limit|too large"):
        kernel.check_data(heavy, big_card, 1.0)
    assert time.process_time() - start < 20
