"""The signed documents that an export holds: their forms and bounds, as docs/protocol.md gives them."""

import ipaddress
import unicodedata

from primitives import Bad, check_signature, decode, derive_key, require

HOUR = 3_600_000
YEAR = 366 * 24 * HOUR
NO_IMAGE = {"reference": "scratch", "digest": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
LOWER, DIGITS = frozenset("abcdefghijklmnopqrstuvwxyz"), frozenset("0123456789")
LETTERS = LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
U16, U32, U64 = 1 << 16, 1 << 32, 1 << 64


# Forms: each takes a decoded value and fails, or returns it.


def number(below):
    def check(value):
        require(type(value) is int and 0 <= value < below, "not a number, or one out of bounds")

    return check


def blob(size):
    def check(value):
        require(isinstance(value, bytes) and len(value) == size, "not so many bytes")

    return check


def text(most, characters=None, least=0):
    def check(value):
        require(isinstance(value, str) and least <= len(value.encode()) <= most, "not a text, or too long")
        if characters is None:
            require(not any(unicodedata.category(c) == "Cc" for c in value), "control characters")
        else:
            require(characters.issuperset(value), "a text with other characters")

    return check


def flag(value):
    require(isinstance(value, bool), "neither true nor false")


def signed(value):
    require(isinstance(value, list) and len(value) == 2, "not a signed document")
    require(all(isinstance(part, bytes) for part in value) and len(value[1]) == 64, "not a signed document")


def maybe(form):
    return lambda value: None if value is None else form(value)


def many(form, least, most):
    def check(value):
        require(isinstance(value, list) and least <= len(value) <= most, "not a list, or too long")
        for item in value:
            form(item)

    return check


def fields(**forms):
    def check(value):
        require(isinstance(value, dict) and value.keys() == forms.keys(), "fields are missing, or unknown")
        for name, form in forms.items():
            form(value[name])

    return check


def word(*words, **contents):
    """One of these words, or a map of one of these names to its contents."""

    def check(value):
        if isinstance(value, dict):
            require(len(value) == 1 and contents.keys() >= value.keys(), "an unknown word")
            for name, content in value.items():
                contents[name](content)
        else:
            require(isinstance(value, str) and value in words, "an unknown word")

    return check


ID, NODE, AMOUNT, TIME, LENGTH = blob(32), blob(32), number(U64), number(U64), number(U64)
CURRENCY = text(8, LETTERS - LOWER, 3)
NAME = text(32, LOWER | DIGITS | frozenset("_-"), 1)
METHOD = text(32, LOWER | DIGITS | {"-"}, 1)
SENTENCE = text(512)
COUNTERS = fields(
    **{name: number(U64) for name in ("active", "waived", "paused", "storage", "rx_bytes", "tx_bytes")}
)
END = ("destroyed left_early expired asked_from_inside host_aborted image_failed create_failed prepare_timeout "
       "container_lost engine_lost unconfirmed volume_lost unpaid disputed host_vanished member_removed").split()
PAUSE = ("stopped exited no_credit max_spend expired host_restart engine_restart disk_full outbid maintenance "
         "volume_ended quota_used").split()
STATE = word("preparing", "running", "kept", paused=word(*PAUSE), ended=word(*END))
TERMS = fields(
    n=number(U32), compute_hour=AMOUNT, bid_at=TIME, ends_at=TIME, max_spend=maybe(AMOUNT), extend_until=maybe(TIME),
    next=maybe(fields(**{"from": TIME, "compute_hour": AMOUNT})), counted=COUNTERS, carried=AMOUNT,
)
CHANGE = word(
    bid=fields(compute_hour=AMOUNT),
    extend=fields(ends_at=TIME, compute_hour=maybe(AMOUNT)),
    ceiling=fields(max_spend=maybe(AMOUNT)),
    auto_extend=fields(until=maybe(TIME)),
)
DISPUTES = ("over_metered not_acknowledged not_delivered performance bait unpaid payment_ignored abuse other").split()
BODY = word(
    genesis=fields(network=ID),
    lease_open=fields(draft=signed),
    lease_accept=fields(open=ID),
    void=fields(open=ID, code=word("taken", "late", "unknown", "unavailable", "unpaid"), sentence=SENTENCE),
    placement=fields(start=number(U32), slots=many(number(U16), 0, 256), devices=many(text(256), 0, 256)),
    amend=fields(n=number(U32), change=CHANGE, valid_until=TIME),
    amended=fields(amend=maybe(ID), terms=TERMS),
    anchor=fields(usage=ID, ack=ID, due=AMOUNT),
    close=fields(reason=word(*END), usage=maybe(ID), due=AMOUNT),
    close_ack=fields(close=ID, due=AMOUNT),
    settle=fields(n=number(U32), currency=CURRENCY, amount=AMOUNT, total=AMOUNT,
                  method=METHOD, reference=text(128)),
    settle_ack=fields(settle=ID, n=number(U32), currency=CURRENCY, total=AMOUNT),
    dispute=fields(about=ID, code=word(*DISPUTES), sentence=SENTENCE),
    attestation=fields(claim=NAME, until=maybe(TIME), withdrawn=flag),
    checkpoint=fields(seq=number(U64), id=ID, kept=number(U64), entries=ID, totals=ID),
    probe=word(uptime=fields(**{"from": TIME, "up_permille": number(1001)}),
               performance=fields(what=NAME, promised=number(U64), measured=number(U64)),
               rental=fields(**{"from": TIME, "watched": TIME, "answered": TIME})),
)
ABOUT_ITSELF = {"genesis", "checkpoint"}
ABOUT_A_PEER = {"settle", "settle_ack", "attestation", "probe"}


def address(value):
    """An IP address without a zone, or a name."""
    require(isinstance(value, str), "not a text")
    try:
        ipaddress.ip_address(value)
        require("%" not in value, "an address with a zone")
    except ValueError:
        parts = value.split(".")
        require(len(value) <= 255 and all(part and part[0] != "-" for part in parts), "neither an address nor a name")
        require(all((LETTERS | DIGITS | {"-"}).issuperset(part) for part in parts), "neither an address nor a name")


def digest(value):
    text(71)(value)
    require(value.startswith("sha256:") and len(value) == 71, "not a SHA-256 digest")
    require(frozenset("0123456789abcdef").issuperset(value[7:]), "not a SHA-256 digest")


DRAFT = fields(
    host=NODE, renter=NODE, machine=blob(16), ask=blob(8), offer=ID, nonce=blob(16),
    rental=word("on_demand", "interruptible", "reserved"),
    resources=fields(slots=number(257), cpu_milli=number(U32), ram_mb=number(U64), disk_mb=number(U64), shm_mb=number(U64),
                     pids=number(U32), **{"class": word("cpu", gpu=text(64))}),
    egress=word("none", "internet", "full"),
    public=maybe(fields(address=address, ports=many(fields(public=number(U16), port=number(U16), udp=flag), 1, 16))),
    currency=CURRENCY,
    rates=fields(compute_hour=number(10**15 + 1), storage_gb_month=AMOUNT, up_gb=AMOUNT, down_gb=AMOUNT),
    listed_hour=AMOUNT, credit=AMOUNT,
    payment=maybe(fields(when=word("after", "before"), methods=many(METHOD, 1, 8), slice=AMOUNT, first=AMOUNT)),
    max_spend=maybe(AMOUNT), extend_until=maybe(TIME),
    notice=number(24 * HOUR + 1), quantum=number(24 * HOUR + 1), tick=number(HOUR + 1),
    image=fields(reference=text(512, LETTERS | DIGITS | frozenset("._-/:@"), 1), digest=digest),
    workload=ID, ssh_host_key=blob(32), drafted_at=TIME, ends_at=TIME, commit_by=TIME, confirm_by=TIME,
)


def check_draft(draft):
    resources, rates = draft["resources"], draft["rates"]
    require(draft["host"] != draft["renter"], "host and renter are the same")
    require(draft["tick"] >= 1000, "the tick is too short")
    require(draft["drafted_at"] < draft["commit_by"] <= draft["confirm_by"], "times out of order")
    require(draft["commit_by"] < draft["ends_at"], "times out of order")
    require(max(draft["ends_at"], draft["extend_until"] or 0) - draft["drafted_at"] <= YEAR, "over a year")
    if draft["rental"] == "reserved":
        require(rates["compute_hour"] <= draft["listed_hour"], "reserved above the listed price")
    if draft["payment"] is not None and draft["payment"]["when"] == "after":
        require(draft["payment"]["first"] == 0, "what is paid after use has no first payment")
    if draft["public"] is not None:
        ports = draft["public"]["ports"]
        require(all(port["public"] and port["port"] for port in ports), "0 is no port")
        require(len({port["public"] for port in ports}) == len(ports), "a public port twice")
    if resources["slots"] == 0:
        nothing = {"slots": 0, "class": "cpu", "cpu_milli": 0, "ram_mb": 0, "shm_mb": 0, "pids": 0}
        require(resources == nothing | {"disk_mb": resources["disk_mb"]}, "a volume with more than a disk")
        require(resources["disk_mb"] >= 100 and draft["rental"] == "on_demand", "no such volume")
        require(rates["compute_hour"] == 0 and draft["listed_hour"] == 0, "a volume that computes")
        require(draft["egress"] == "none" and draft["public"] is None, "a volume that runs")
        require(draft["image"] == NO_IMAGE, "a volume that runs")


def check_entry(entry):
    ((name, body),) = entry["body"].items()
    require((entry["seq"] == 0) == (name == "genesis"), "a chain begins with its genesis")
    require((entry["seq"] == 0) == (entry["prev"] is None), "only the first has none before it")
    require((entry["peer"] is None) == (name in ABOUT_ITSELF), "a peer too many or too few")
    no_lease = name in ABOUT_ITSELF | ABOUT_A_PEER and not (name == "probe" and "rental" in body)
    require((entry["lease"] is None) == no_lease, "a lease too many or too few")
    require(entry["peer"] != entry["author"], "its peer is its author")
    if name in ("settle", "settle_ack"):
        require(body["n"] > 0, "payments are counted from 1")
    if name == "settle":
        require(0 < body["amount"] <= body["total"], "no such payment")
        require(body["n"] > 1 or body["amount"] == body["total"], "the first payment is their sum")
    if name == "checkpoint":
        require(body["seq"] < entry["seq"], "a checkpoint stands for entries before it")
        require(1 <= body["kept"] <= body["seq"] + 1, "it keeps more entries than there were, or none")
    if name == "probe" and "uptime" in body:
        require(body["uptime"]["from"] % (12 * HOUR) == 0, "a window begins at noon or midnight")
    if name == "probe" and "rental" in body:
        seen = body["rental"]
        require(0 < seen["watched"] and seen["answered"] <= seen["watched"], "it answered longer than it was looked at")
        require(seen["from"] + seen["watched"] <= entry["time"], "it was looked at for longer than there was time")


def check_usage(usage):
    require(usage["n"] >= 1 and (usage["n"] == 1) == (usage["prev"] is None), "only the first has none before it")
    require(usage["counters"]["waived"] <= usage["counters"]["active"], "more is waived than was used")


def check_ack(ack):
    require(ack["n"] >= 1, "its number is zero")


# Kind: context, author's field, most bytes, form, bounds across fields.
KINDS = {
    "entry": ("souk 2026-11 entry v1", "author", 6144, fields(
        author=NODE, seq=number(U64), prev=maybe(ID), time=TIME, lease=maybe(ID), peer=maybe(NODE), body=BODY,
    ), check_entry),
    "draft": ("souk 2026-11 lease v1", "host", 4096, DRAFT, check_draft),
    "usage": ("souk 2026-11 usage v1", "host", 1024, fields(
        host=NODE, lease=ID, n=number(U64), prev=maybe(ID), time=TIME, counters=COUNTERS, terms=number(U32), due=AMOUNT,
        state=STATE,
    ), check_usage),
    "ack": ("souk 2026-11 ack v1", "renter", 1024, fields(
        renter=NODE, lease=ID, n=number(U64), usage=ID, due=AMOUNT,
        partial=maybe(word("over_metered", "not_running", "not_asked", "silent")),
    ), check_ack),
    "trailer": ("souk 2026-11 export v1", "author", 512, fields(
        author=NODE, count=number(U64), head=maybe(ID), digest=ID,
    ), lambda trailer: None),
}
_KNOWN = {}


def document(kind, envelope, network):
    """Its id and what it says, if its form, bounds and signature hold. Remembers what it has checked, good or bad."""
    signed(envelope)
    payload, signature = envelope
    key = (kind, network, payload, signature)
    if key not in _KNOWN:
        if len(_KNOWN) > 50_000:
            _KNOWN.clear()
        try:
            _KNOWN[key] = _document(kind, payload, signature, network)
        except Bad as why:
            _KNOWN[key] = Bad(f"{kind}: {why}")
    if isinstance(_KNOWN[key], Bad):
        raise _KNOWN[key]
    return _KNOWN[key]


def _document(kind, payload, signature, network):
    context, author, most, form, bounds = KINDS[kind]
    require(len(payload) <= most, "too long")
    value = decode(payload)
    form(value)
    bounds(value)
    identity = derive_key(context, network + payload)
    check_signature(value[author], identity, signature)
    if kind == "entry" and "lease_open" in value["body"]:
        document("draft", value["body"]["lease_open"]["draft"], network)
    return identity, value
