"""Changes to valid files and messages: at random, but aimed at what breaks readers."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

_NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64)
_WORDS = (b"", b"nan", b"inf", b"-1", b"0", b"1e999", b"-0.0", b"999999999", b"20000000000", b"none", b"../x", b"\0")
_DEEP = "a very deep list"
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 1e308, -1e308, float("nan"), float("inf"), 10**30, 2**31, 0.5, "", " ", "0", "\0",
    "x\0y", "../../outside", "/outside", "..", ".", "C:\\outside", "a" * 300, "a/" * 2000, "\ud800", "\u202eabc", "~",
    "%s%n", "é" * 130, [], {}, [[]], [None], {"": None}, [1, 2, 3], _DEEP, "NaN", "cpu", "CT", "image",
)  # fmt: skip


def changed_bytes(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """``data`` after one to four changes.

    Args:
        others: further valid files of the kind, to splice pieces from.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        data = rng.choice(_BYTE_CHANGES)(data, rng, others)
    return data


def changed_json(value: Any, rng: random.Random) -> bytes:
    """JSON of ``value`` after one to three changes of its nodes; now and then its bytes are changed, too."""
    tree = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        tree = _changed_node(tree, rng)
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    depth = rng.choice((50, 900, 100_000))
    data = text.replace(json.dumps(_DEEP), "[" * depth + "]" * depth).encode("utf-8", "surrogatepass")
    return changed_bytes(data, rng) if rng.random() < 0.2 else data


def _changed_node(tree: Any, rng: random.Random) -> Any:
    """Replace, drop, add or double one node."""
    places = list(_places(tree))
    if not places:
        return _value(rng)
    holder, key = rng.choice(places)
    action = rng.random()
    if action < 0.7:
        holder[key] = _value(rng)
    elif action < 0.85:
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(rng.choice([*_VALUES, holder[key]])))
    else:
        holder[rng.choice(("", "name", "file", "folder", "__class__", "x" * 200))] = _value(rng)
    return tree if rng.random() < 0.99 else _value(rng)


def _value(rng: random.Random) -> Any:
    """One of the odd values, a copy: what one input does to a list must not reach the next input."""
    return copy.deepcopy(rng.choice(_VALUES))


def _places(tree: Any) -> Any:
    """Every (holder, key) below ``tree``."""
    if isinstance(tree, (dict, list)):
        for key, item in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
            yield tree, key
            yield from _places(item)


def _flip_bit(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = _position(data, rng)
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _set_byte(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = _position(data, rng)
    return data[:at] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))]) + data[at + 1 :]


def _set_number(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """A 16, 32 or 64-bit integer that lies at a limit, or a float that is none."""
    size = rng.choice((2, 4, 8))
    at = _position(data, rng) // rng.choice((1, size)) * rng.choice((1, size))
    number = rng.choice(_NUMBERS) * rng.choice((1, 1, -1)) % 2 ** (8 * size)
    return data[:at] + number.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]


def _set_text_number(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """A number written in digits, in the part of the file that looks like text."""
    digits = [n for n, byte in enumerate(data[:4096]) if 48 <= byte <= 57]
    if not digits:
        return data
    begin = rng.choice(digits)
    end = begin
    while end < len(data) and (48 <= data[end] <= 57 or data[end] in b".-+e"):
        end += 1
    word = rng.choice([*_WORDS, *(b"%d" % n for n in _NUMBERS), b"9" * 5000 if rng.random() < 0.1 else b"3"])
    return data[:begin] + word + data[end:]


def _drop_line(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    del lines[rng.randrange(min(len(lines), 40))]
    return b"\n".join(lines)


def _double_line(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(min(len(lines), 40))
    return b"\n".join([*lines[: at + 1], *lines[at:]])


def _drop_piece(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = _position(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 4, 16, 256)) :]


def _insert_piece(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = _position(data, rng)
    piece = rng.choice((rng.randbytes(rng.choice((1, 4, 64))), bytes(rng.choice((1, 8, 512))), b"\xff" * 8))
    return data[:at] + piece + data[at:]


def _truncate(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _splice(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    if not others:
        return _insert_piece(data, rng, others)
    other, at = rng.choice(others), _position(data, rng)
    begin = rng.choice((at, _position(other, rng)))
    return data[:at] + other[begin:]


def _position(data: bytes, rng: random.Random) -> int:
    """Mostly near the beginning, where headers are."""
    if not data:
        return 0
    return rng.randrange(min(len(data), rng.choice((8, 64, 512, len(data)))))


_BYTE_CHANGES = (
    _flip_bit, _flip_bit, _set_byte, _set_number, _set_number, _set_text_number, _set_text_number, _drop_line,
    _double_line, _drop_piece, _insert_piece, _truncate, _splice,
)  # fmt: skip
