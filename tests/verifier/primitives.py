"""BLAKE3, strict Ed25519 and canonical CBOR, with Python's standard library alone.

Written from their specifications and from docs/protocol.md (ids and keys, canonical bytes, signed documents). Checks only: it
does not sign. Nothing here keeps a secret, so nothing here runs in constant time.
"""

import hashlib
from struct import unpack


class Bad(Exception):
    """What is wrong, as a sentence."""


def require(holds, what):
    if not holds:
        raise Bad(what)


# BLAKE3

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT, CONTEXT, MATERIAL = 1, 2, 4, 8, 32, 64
WORD = 0xFFFFFFFF


def _unrolled():
    """The compression function's source: seven rounds of eight mixings, written out, since a loop takes three times as long."""
    lines = ["def compress(cv, block, counter, length, flags):"]
    lines.append("    " + ", ".join(f"m{i}" for i in range(16)) + " = unpack('<16I', block)")
    lines.append("    " + ", ".join(f"v{i}" for i in range(8)) + " = cv")
    lines.append("    v8, v9, v10, v11 = IV[:4]")
    lines.append("    v12, v13, v14, v15 = counter & WORD, counter >> 32, length, flags")
    order = list(range(16))
    columns = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
    diagonals = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(columns + diagonals):
            for message, (down, right) in ((order[2 * i], (16, 12)), (order[2 * i + 1], (8, 7))):
                lines.append(f"    v{a} = (v{a} + v{b} + m{message}) & WORD; v{d} ^= v{a}")
                lines.append(f"    v{d} = (v{d} >> {down} | v{d} << {32 - down}) & WORD")
                lines.append(f"    v{c} = (v{c} + v{d}) & WORD; v{b} ^= v{c}")
                lines.append(f"    v{b} = (v{b} >> {right} | v{b} << {32 - right}) & WORD")
        order = [order[i] for i in PERMUTATION]
    lines.append("    return " + ", ".join(f"v{i} ^ v{i + 8}" for i in range(8)))
    return "\n".join(lines)


exec(_unrolled())  # pylint: disable=exec-used


def _bytes(words):
    return b"".join(word.to_bytes(4, "little") for word in words)


def _chunk(key, data, counter, flags, root):
    """The chaining value of up to 1,024 bytes."""
    cv, last = key, max(0, len(data) - 1) // 64
    for i in range(last + 1):
        block = data[64 * i : 64 * i + 64]
        marks = flags | (CHUNK_START if i == 0 else 0) | ((CHUNK_END | root) if i == last else 0)
        cv = compress(cv, block.ljust(64, b"\0"), counter, len(block), marks)  # noqa: F821
    return cv


def _tree(key, data, counter, flags, root):
    """The chaining value of a subtree: its left side is the largest power of two chunks that leaves something on the right."""
    if len(data) <= 1024:
        return _chunk(key, data, counter, flags, root)
    left = 1 << ((len(data) - 1) // 1024).bit_length() - 1
    halves = _tree(key, data[: left * 1024], counter, flags, 0) + _tree(key, data[left * 1024 :], counter + left, flags, 0)
    return compress(key, _bytes(halves), 0, 64, flags | PARENT | root)  # noqa: F821


def blake3(data):
    return _bytes(_tree(IV, data, 0, 0, ROOT))


_CONTEXT_KEYS = {}


def derive_key(context, data):
    if context not in _CONTEXT_KEYS:
        _CONTEXT_KEYS[context] = _tree(IV, context.encode(), 0, CONTEXT, ROOT)
    return _bytes(_tree(_CONTEXT_KEYS[context], data, 0, MATERIAL, ROOT))


# Ed25519 (RFC 8032). A point is (X, Y, Z, T): x = X/Z, y = Y/Z, T = XY/Z.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
NEUTRAL = (0, 1, 1, 0)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def decode_point(data):
    """The point, or none."""
    y, sign = int.from_bytes(data, "little") & (1 << 255) - 1, data[31] >> 7
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    return (P - x if x % 2 != sign else x, y, 1, (P - x if x % 2 != sign else x) * y % P)


def encode_point(p):
    inverse = pow(p[2], -1, P)
    return (p[1] * inverse % P | (p[0] * inverse % P & 1) << 255).to_bytes(32, "little")


def is_weak(p):
    """Whether its order is 8 or less."""
    for _ in range(3):
        p = add(p, p)
    return p[0] == 0 and p[1] == p[2]


def multiples(p):
    """j × 16^i × p for every i below 64 and j below 16: a product by a scalar is then 64 additions."""
    table = []
    for _ in range(64):
        row = [NEUTRAL]
        for _ in range(15):
            row.append(add(row[-1], p))
        table.append(row)
        p = add(row[15], p)
    return table


def times(scalar, table, total):
    for row in table:
        if scalar & 15:
            total = add(total, row[scalar & 15])
        scalar >>= 4
    return total


BASE = multiples(decode_point((4 * pow(5, -1, P) % P).to_bytes(32, "little")))
_KEYS = {}


def _key(key):
    """The multiples of minus the key's point, or none if it can't be used."""
    if key not in _KEYS:
        if len(_KEYS) > 64:
            _KEYS.clear()
        p = decode_point(key)
        usable = p is not None and not is_weak(p)
        _KEYS[key] = multiples((P - p[0], p[1], 1, P - p[3])) if usable else None
    return _KEYS[key]


def check_signature(key, digest, signature):
    table = _key(key)
    require(table is not None, "the author's key is not usable")
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    require(s < L, "the signature is not its author's")
    k = int.from_bytes(hashlib.sha512(r + key + digest).digest(), "little") % L
    expected = times(s, BASE, times(k, table, NEUTRAL))
    require(encode_point(expected) == r and not is_weak(expected), "the signature is not its author's")


# Canonical CBOR


def decode(data):
    """The value of exactly these bytes: int, bytes, str, list, dict, bool or None."""
    value, end = _value(data, 0, 0)
    require(end == len(data), "something follows the value")
    return value


def _value(data, at, depth):
    require(at < len(data), "it ends too early")
    require(depth < 16, "it is nested too deeply")
    major, minor = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        require(minor in (20, 21, 22), "neither a boolean nor null")
        return {20: False, 21: True, 22: None}[minor], at
    require(minor < 28 and major != 6, "an indefinite length, or a tag")
    number = minor
    if minor >= 24:
        size = 1 << minor - 24
        number = int.from_bytes(data[at : at + size], "big")
        require(at + size <= len(data), "it ends too early")
        require(number >= (24 if size == 1 else 1 << 4 * size), "not the shortest form")
        at += size
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    require(number <= len(data) - at, "it ends too early")
    if major in (2, 3):
        body = bytes(data[at : at + number])
        try:
            return (body if major == 2 else body.decode()), at + number
        except UnicodeDecodeError:
            raise Bad("a text that is not UTF-8") from None
    if major == 4:
        items = []
        for _ in range(number):
            item, at = _value(data, at, depth + 1)
            items.append(item)
        return items, at
    pairs, last = {}, None
    for _ in range(number):
        key, at = _value(data, at, depth + 1)
        require(isinstance(key, str), "a map's key is no text")
        place = (len(key.encode()), key.encode())
        require(last is None or last < place, "a map's keys are not in order, or one is there twice")
        pairs[key], at = _value(data, at, depth + 1)
        last = place
    return pairs, at


def encode(value):
    """The bytes of a number, a text, bytes or a list of them: what a checkpoint's sums are digested from."""
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, int):
        return _head(0, value)
    body = value.encode() if isinstance(value, str) else value
    return _head(3 if isinstance(value, str) else 2, len(body)) + body


def _head(major, number):
    if number < 24:
        return bytes([major << 5 | number])
    size = next(size for size in (1, 2, 4, 8) if number < 1 << 8 * size)
    return bytes([major << 5 | 24 + size.bit_length() - 1]) + number.to_bytes(size, "big")
