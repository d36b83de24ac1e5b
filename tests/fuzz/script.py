"""A fuzzer's input as a script: what a peer that knows TLS does to its own messages, records and turns.

The peers of tests.fuzz.peers hold a right handshake, with right keys, binders, signatures and Finished over what was
really sent. A script says where they leave the path. So a mutation of the bytes is one of messages, however deep in the
handshake and under whatever keys they stand, and the fuzzer need not forge a MAC to get there.

    input = settings (2 bytes) operation*
    operation = kind, slot, position (2 bytes, little-endian), n, payload (n bytes)

Any bytes are a script; an operation that is cut short ends it.
"""

import dataclasses

HEADER = 5
OPERATIONS_MAX = 24
# Where a message has the lengths (of 3 bytes) of what holds its last list of extensions: of Certificate its entries, of
# a CompressedCertificate that is not really compressed the whole of it, twice.
HOLDING = {11: (1,), 25: (2, 5, 9)}

# Where the operations act: each message of a peer has its slot, whichever handshake it is in.
SLOTS = (
    "client_hello", "second_hello", "early_data", "client_certificate", "client_key", "client_verify",
    "client_finished", "retry", "server_hello", "extensions", "request", "certificate", "verify", "finished",
    "ticket", "after",
)  # fmt: skip

KINDS = (
    "set", "insert", "delete", "truncate", "repeat", "drop", "add_extension", "set_extension", "drop_extension", "type",
    "body", "length", "before", "behind", "split", "plain", "flip", "act",
)  # fmt: skip


@dataclasses.dataclass
class Operation:
    kind: str
    slot: str
    position: int
    payload: bytes

    def encode(self):
        return (
            bytes((KINDS.index(self.kind), SLOTS.index(self.slot)))
            + self.position.to_bytes(2, "little")
            + bytes((len(self.payload),))
            + self.payload
        )


def encode(settings, *operations):
    """The bytes of a script: settings, and (kind, slot, position, payload) each."""
    return settings.to_bytes(2, "little") + b"".join(Operation(*operation).encode() for operation in operations)


class Script:
    def __init__(self, data):
        self.settings = int.from_bytes(data[:2], "little")
        self.operations = []
        at = 2
        while at + HEADER <= len(data) and len(self.operations) < OPERATIONS_MAX:
            kind, slot, position = data[at], data[at + 1], int.from_bytes(data[at + 2 : at + 4], "little")
            end = at + HEADER + data[at + 4]
            payload = data[at + HEADER : end]
            self.operations.append(Operation(KINDS[kind % len(KINDS)], SLOTS[slot % len(SLOTS)], position, payload))
            at = end

    def of(self, slot, *kinds):
        return [o for o in self.operations if o.slot == slot and o.kind in kinds]

    def messages(self, slot, whole):
        """What is sent in place of the message: none, one or more; a header's length is right unless an operation
        is about it."""
        type, body = whole[0], bytearray(whole[4:])
        count, length = 1, None
        for o in self.of(slot, *KINDS[:12]):
            at = o.position % (len(body) + 1)
            if o.kind == "set":
                body[at : at + len(o.payload)] = o.payload
            elif o.kind == "insert":
                body[at:at] = o.payload
            elif o.kind == "delete":
                del body[at : at + (o.payload[0] if o.payload else 1)]
            elif o.kind == "truncate":
                del body[at:]
            elif o.kind == "repeat":
                count = min(count + 1, 8)
            elif o.kind == "drop":
                count = 0
            elif o.kind == "type" and o.payload:
                type = o.payload[0]
            elif o.kind == "body":
                body[:] = o.payload
            elif o.kind == "length":
                length = o.position | (o.payload[0] if o.payload else 0) << 16
            elif o.kind.endswith("_extension"):
                change_extensions(body, o, HOLDING.get(type, ()))
        length = len(body) if length is None else length
        return [bytes((type,)) + length.to_bytes(3, "big") + bytes(body)] * count


def change_extensions(body, o, holding):
    """Adds, replaces or drops one extension of the list that ends the body, if there is one; the lengths at `holding`
    follow."""
    start, found = extensions_of(body, max(holding, default=-3) + 3)
    if start is None:
        return
    at = o.position % (len(found) + 1)
    if o.kind == "add_extension" and len(o.payload) >= 2:
        found.insert(at, (o.payload[:2], o.payload[2:]))
    elif o.kind == "set_extension" and at < len(found):
        found[at] = (found[at][0], o.payload)
    elif o.kind == "drop_extension" and at < len(found):
        del found[at]
    encoded = b"".join(bytes(type) + len(value).to_bytes(2, "big") + bytes(value) for type, value in found)
    if len(encoded) >= 0x10000:
        return
    grown = start + 2 + len(encoded) - len(body)
    body[start:] = len(encoded).to_bytes(2, "big") + encoded
    for at in holding:
        length = int.from_bytes(body[at : at + 3], "big") + grown
        body[at : at + 3] = (length % (1 << 24)).to_bytes(3, "big")


def extensions_of(body, after=0):
    """(where it begins, [(type, body)]) of the longest list of extensions that the body ends with; (None, [])."""
    for start in range(after, len(body) - 1):
        if start + 2 + int.from_bytes(body[start : start + 2], "big") != len(body):
            continue
        at, found = start + 2, []
        while at + 4 <= len(body):
            end = at + 4 + int.from_bytes(body[at + 2 : at + 4], "big")
            found.append((body[at : at + 2], body[at + 4 : end]))
            at = end
        if at == len(body):
            return start, found
    return None, []
