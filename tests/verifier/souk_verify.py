#!/usr/bin/env python3
"""Checks exported ledgers, as `souk verify` does, by docs/protocol.md alone: shares no code with souk, and needs nothing but Python.

    souk_verify.py FILE...     prints a verdict for each; exits with 0 valid, 1 invalid, 6 incomplete, 2 unreadable
    souk_verify.py --batch     reads exports from standard input, each after its length as u32 LE; answers each with a line

A file is read whole: this is for checking the protocol and a ledger of reasonable size, not for speed.
"""

import sys
from collections import defaultdict
from types import SimpleNamespace

from documents import HOUR, ID, NODE, U64, YEAR, document, fields, number, text, word
from primitives import Bad, blake3, decode, encode, require

VERDICTS = {0: "valid", 1: "invalid", 6: "incomplete"}
HEADER = fields(format=text(64), version=number(1 << 32), network=ID, author=NODE, filter=word("all", "restored", lease=ID))
MONTH = 30 * 24 * HOUR
UNIT = 10**9 * MONTH
NOTHING = dict.fromkeys(("active", "waived", "paused", "storage", "rx_bytes", "tx_bytes"), 0)


# What is due


def bounded(value, bits):
    require(value < 1 << bits, "an amount overflows")
    return value


def cost(rates, disk_mb, counters, carried):
    u128 = lambda value: bounded(value, 128)  # noqa: E731
    running = max(0, counters["active"] - counters["waived"])
    numerator = u128(running * rates["compute_hour"] * (UNIT // HOUR))
    numerator = u128(numerator + u128(u128(disk_mb * 10**6 * counters["storage"]) * rates["storage_gb_month"]))
    numerator = u128(numerator + u128(counters["tx_bytes"] * rates["up_gb"] * (UNIT // 10**9)))
    numerator = u128(numerator + u128(counters["rx_bytes"] * rates["down_gb"] * (UNIT // 10**9)))
    return bounded(carried + bounded(numerator // UNIT, 64), 64)


def covers(counters, earlier):
    return all(counters[name] >= earlier[name] for name in NOTHING)


def drafted(draft):
    return {
        "n": 0, "compute_hour": draft["rates"]["compute_hour"], "bid_at": draft["drafted_at"], "ends_at": draft["ends_at"],
        "max_spend": draft["max_spend"], "extend_until": draft["extend_until"], "next": None, "counted": NOTHING, "carried": 0,
    }


def due_by(terms, draft, counters, state=None):
    since = {name: max(0, counters[name] - terms["counted"][name]) for name in NOTHING}
    rates = draft["rates"] | {"compute_hour": terms["compute_hour"]}
    ceiling = U64 if terms["max_spend"] is None else terms["max_spend"]
    due = min(cost(rates, draft["resources"]["disk_mb"], since, terms["carried"]), ceiling)
    if draft["rental"] == "reserved" and state == {"ended": "left_early"}:
        due = min(bounded(due + discount(draft, counters), 64), ceiling)
    return due


def discount(draft, counters):
    rate = max(0, draft["listed_hour"] - draft["rates"]["compute_hour"])
    return cost(dict.fromkeys(draft["rates"], 0) | {"compute_hour": rate}, 0, counters, 0)


# Amendments


def successors(terms, draft, change, claimed, at):
    """What may follow these terms: by the renter's change, or by the host alone. `claimed` is what the host says follows."""
    require(terms["n"] < 100_000, "too many amendments")
    counted = claimed["counted"]
    same = terms | {"n": terms["n"] + 1, "counted": counted, "carried": due_by(terms, draft, counted)}
    if change is None:
        if terms["next"] is not None and at >= terms["next"]["from"]:
            price = terms["next"]
            yield same | {"compute_hour": price["compute_hour"], "bid_at": price["from"], "next": None}
        end = claimed["ends_at"]
        if terms["extend_until"] is not None and terms["ends_at"] < end <= terms["extend_until"]:
            yield same | {"ends_at": end}
            cheaper = claimed["next"]
            if terms["next"] is None and cheaper is not None and cheaper["compute_hour"] < terms["compute_hour"]:
                yield same | {"ends_at": end, "next": cheaper | {"from": terms["ends_at"]}}
        return
    ((name, change),) = change.items()
    price = change.get("compute_hour")
    require(price is None or price <= 10**15, "a price too high")
    if name == "bid":
        raised = price > terms["compute_hour"]
        require(draft["rental"] == "interruptible" and price != terms["compute_hour"], "no such bid")
        require(not raised or price >= terms["compute_hour"] * 1050 // 1000, "too small a raise")
        yield same | {"compute_hour": price, "bid_at": at}
    elif name == "extend":
        require(terms["ends_at"] < change["ends_at"] <= at + YEAR, "no such end")
        new = same | {"ends_at": change["ends_at"]}
        if price is not None and price != terms["compute_hour"]:
            require(draft["rental"] != "interruptible" and terms["next"] is None, "no such price")
            new["next"] = {"from": terms["ends_at"], "compute_hour": price}
        yield new
    elif name == "ceiling":
        least = cost(draft["rates"], draft["resources"]["disk_mb"], NOTHING | {"storage": 48 * HOUR}, same["carried"])
        least = bounded(least + (discount(draft, counted) if draft["rental"] == "reserved" else 0), 64)
        require(change["max_spend"] is None or change["max_spend"] > least, "too low a ceiling")
        yield same | {"max_spend": change["max_spend"]}
    else:
        require(change["until"] is None or change["until"] <= at + YEAR, "too long")
        yield same | {"extend_until": change["until"]}


# An export


class Export:
    def __init__(self, header):
        self.author, self.network = header["author"], header["network"]
        self.filter = header["filter"]["lease"] if isinstance(header["filter"], dict) else None
        self.restored = header["filter"] == "restored"
        # Until the cut, and in files that are not all of a ledger, some of the author's records are left out.
        self.sparse = self.restored or self.filter is not None or "cut" in header
        self.cut = "before" if "cut" in header else None
        self.kept, self.count, self.head = [], 0, None
        self.chains, self.newest = defaultdict(dict), {}
        self.leases, self.forked, self.attested = {}, set(), {}
        self.payments, self.arrived = defaultdict(list), defaultdict(int)

    def take(self, kind, envelope):
        identity, value = document(kind, envelope, self.network)
        require(self.filter in (None, value["lease"]), "it is of another lease")
        getattr(self, kind)(identity, value)
        self.count += 1

    def contradiction(self, author):
        """A proof against another than the file's author."""
        require(author != self.author, "its author contradicts itself")
        require(author not in self.forked and len(self.forked) < 10_000, "a second proof against its author")
        self.forked.add(author)

    # Entries

    def entry(self, identity, entry):
        author, seq, own = entry["author"], entry["seq"], entry["author"] == self.author
        require(own or entry["peer"] == self.author, "it is between others")
        chain, newest = self.chains[author], self.newest.get(author)
        at, before, after = chain.get(seq), chain.get(seq - 1), chain.get(seq + 1)
        require(at is None or at[0] != identity, "it is there twice")
        unlinked = before is not None and entry["prev"] != before[0] or after is not None and after[1] != identity
        if at is not None or unlinked:
            self.contradiction(author)
            return
        if own and not (self.restored and newest is not None and seq <= newest["seq"]):
            require(newest is None or seq > newest["seq"], "its own chain is out of order")
            if not self.sparse:
                require(seq == (0 if newest is None else newest["seq"] + 1), "its own chain has a gap")
        if newest is None or seq > newest["seq"]:
            require(newest is None or entry["time"] >= newest["time"], "it is dated before the entry before it")
            self.newest[author] = entry
        ((name, body),) = entry["body"].items()
        getattr(self, "on_" + name)(identity, entry, body)
        chain[seq] = (identity, entry["prev"])
        if own:
            self.head = identity
            self.follow_cut(identity, seq, body if name == "checkpoint" else None)

    def follow_cut(self, identity, seq, checkpoint):
        if self.cut == "before":
            require(not self.kept or seq > self.kept[-1][0], "its author's entries are not in order")
            self.kept.append((seq, identity))
        elif self.cut and checkpoint and checkpoint["seq"] == self.cut["seq"]:
            require(checkpoint == self.cut, "its checkpoint leaves out something else than the file")
            self.cut = None

    def cut_here(self):
        """Nothing is missing from here on: what is there must be what the checkpoint says."""
        require(self.cut == "before", "it is cut where its header says nothing of it, or twice")
        require(self.kept, "it is cut before its author's chain begins")
        (seq, identity), ids = self.kept[-1], b"".join(identity for _, identity in self.kept)
        self.cut = {"seq": seq, "id": identity, "kept": len(self.kept), "entries": blake3(ids), "totals": self.totals()}
        self.sparse, self.count = False, self.count + 1

    def totals(self):
        """What is signed for between the author and everybody, as a checkpoint has it."""
        sums = defaultdict(lambda: [0] * 6)
        for lease in self.leases.values():
            draft = lease.draft
            hosts = draft["host"] == self.author
            row = sums[draft["renter" if hosts else "host"], draft["currency"].encode()]
            row[0 if hosts else 1] = min(row[0 if hosts else 1] + signed_for(lease), U64 - 1)
        for (payer, payee, currency), said in self.payments.items():
            pays = payer == self.author
            row = sums[payee if pays else payer, currency.encode()]
            row[2 if pays else 4], row[3 if pays else 5] = said[-1][1]["total"], self.arrived[payer, payee, currency]
        rows = [[peer, currency.decode(), *sums[peer, currency]] for peer, currency in sorted(sums)]
        return blake3(b"".join(encode(row) for row in rows if any(row[2:])))

    def on_genesis(self, _, __, body):
        require(body["network"] == self.network, "a chain of another network")

    def on_checkpoint(self, _, entry, body):
        require(entry["author"] == self.author, "it is between others")
        named = self.chains[self.author].get(body["seq"])
        require(named is None or named[0] == body["id"], "it stands for an entry that is not there")

    def on_lease_open(self, identity, entry, body):
        draft_id, draft = document("draft", body["draft"], self.network)
        require(draft_id == entry["lease"] and draft_id not in self.leases, "another draft's, or open already")
        require((entry["author"], entry["peer"]) == (draft["renter"], draft["host"]), "not by its renter")
        self.leases[draft_id] = SimpleNamespace(
            draft=draft, open=identity, answer=None, start=0, terms=[drafted(draft)], amends={}, usages=[], agreed=None,
            acked=None, closes={}, close_acks={}, probed=False,
        )

    def lease(self, entry, by_host=None):
        """The lease of an entry by one of its parties about the other."""
        require(entry["lease"] in self.leases, "a lease that nobody opened")
        lease = self.leases[entry["lease"]]
        host, renter = lease.draft["host"], lease.draft["renter"]
        require((entry["author"], entry["peer"]) in ((host, renter), (renter, host)), "not its author's to say")
        require(by_host is None or by_host == (entry["author"] == host), "not its author's to say")
        return lease

    def accepted(self, entry, by_host=True, open_still=False):
        lease = self.lease(entry, by_host)
        require(lease.answer == "accepted", "the lease is not accepted")
        require(not open_still or lease.draft["host"] not in lease.closes, "its host has closed it")
        return lease

    def on_lease_accept(self, _, entry, body, answer="accepted"):
        lease = self.lease(entry, True)
        require(body["open"] == lease.open and lease.answer is None, "another open's, or answered already")
        lease.answer = answer

    def on_void(self, identity, entry, body):
        self.on_lease_accept(identity, entry, body, "void")

    def on_placement(self, _, entry, body):
        lease = self.accepted(entry)
        require(body["start"] > lease.start, "this start is placed already")
        lease.start = body["start"]

    def on_amend(self, identity, entry, body):
        lease = self.accepted(entry, False, True)
        require(body["n"] == lease.terms[-1]["n"] + 1, "not the next amendment's number")
        lease.amends[identity] = body
        lease.amends = dict(list(lease.amends.items())[-32:])

    def on_amended(self, _, entry, body):
        lease, change, new = self.accepted(entry, True, True), None, body["terms"]
        if body["amend"] is not None:
            amend = lease.amends.get(body["amend"])
            require(amend is not None, "it answers an unknown change")
            require(entry["time"] <= min(amend["valid_until"] + 120_000, U64 - 1), "that change's time was past")
            change = amend["change"]
        terms, usage = lease.terms[-1], newest_usage(lease)
        require(covers(new["counted"], terms["counted"]), "it counts less than the terms before")
        require(usage is None or covers(new["counted"], usage[1]["counters"]), "it counts less than was used")
        follows = any(new == terms for terms in successors(terms, lease.draft, change, new, entry["time"]))
        require(follows, "its terms do not follow")
        lease.terms.append(new)
        lease.amends = {}

    def on_anchor(self, _, entry, body):
        fixed = body["due"] <= signed_for(self.accepted(entry))
        require(fixed or self.sparse, "it fixes more than is agreed to")

    def on_close(self, identity, entry, body):
        lease = self.lease(entry)
        require(lease.answer != "void" and entry["author"] not in lease.closes, "it is void, or closed already")
        lease.closes[entry["author"]] = (identity, body["due"])

    def on_close_ack(self, _, entry, body):
        lease = self.lease(entry)
        require(lease.closes.get(entry["peer"], (None,))[0] == body["close"], "it answers an unknown close")
        require(entry["author"] not in lease.close_acks, "the close is answered already")
        lease.close_acks[entry["author"]] = body["due"]

    def on_dispute(self, _, entry, __):
        self.lease(entry)

    # Payments: kept by payer, payee and currency.

    def on_settle(self, identity, entry, body):
        paid = self.payments[entry["author"], entry["peer"], body["currency"]]
        n, total = (paid[-1][1]["n"], paid[-1][1]["total"]) if paid else (0, 0)
        least = bounded(total + body["amount"], 64)
        require(body["n"] > n, "this payment's number is taken")
        require(entry["author"] != self.author or body["n"] == n + 1, "its own payments have a gap")
        require(body["total"] == least if body["n"] == n + 1 else body["total"] >= least, "a wrong sum of payments")
        paid.append((identity, body))

    def on_settle_ack(self, _, entry, body):
        pair = entry["peer"], entry["author"], body["currency"]
        named = [said for identity, said in self.payments[pair] if identity == body["settle"]]
        require(named and named[0]["n"] == body["n"], "it answers an unknown payment")
        require(self.arrived[pair] <= body["total"] <= named[0]["total"], "more than was paid, or less than before")
        self.arrived[pair] = body["total"]

    def on_attestation(self, _, __, ___):
        """One's own word: nothing follows from it."""

    def on_probe(self, _, entry, body):
        if "rental" not in body:
            return
        lease = self.accepted(entry, False)
        require(lease.start > 0 and lease.draft["resources"]["slots"] > 0, "nothing of it ever started")
        require(lease.closes and not lease.probed, "it is not over, or its renter has said already what it saw")
        lease.probed = True

    # Receipts

    def usage(self, identity, usage):
        require(usage["lease"] in self.leases, "a lease that nobody opened")
        lease, counters = self.leases[usage["lease"]], usage["counters"]
        draft, host = lease.draft, lease.draft["host"]
        require(usage["host"] == host, "not by its host")
        for held_id, held in lease.usages + ([lease.agreed] if lease.agreed else []):
            if held["n"] == usage["n"]:
                require(held_id != identity, "it is there twice")
                self.contradiction(host)
                return
        require(lease.answer == "accepted" and host not in lease.closes, "the lease is not accepted, or closed")
        terms = [terms for terms in lease.terms[-32:] + lease.terms[:1] if terms["n"] == usage["terms"]]
        require(terms, "its terms are unknown, or too old")
        require(covers(counters, terms[0]["counted"]), "it counts less than its terms began with")
        require(usage["due"] == due_by(terms[0], draft, counters, usage["state"]), "a wrong sum")
        if newest_usage(lease):
            last_id, last = newest_usage(lease)
            require(usage["n"] > last["n"], "an old number")
            if usage["n"] == last["n"] + 1:
                require(usage["prev"] == last_id, "it does not name the one before")
            else:
                kept = host != self.author or self.sparse or self.restored
                require(kept, "its own usages leave out a number")
            require(usage["terms"] >= last["terms"], "it goes back to older terms")
            require(covers(counters, last["counters"]) and usage["time"] >= last["time"], "a count or the time goes back")
        lease.usages = lease.usages[-3:] + [(identity, usage)]

    def ack(self, identity, ack):
        require(ack["lease"] in self.leases, "a lease that nobody opened")
        lease = self.leases[ack["lease"]]
        require(ack["renter"] == lease.draft["renter"], "not by its renter")
        if lease.acked:
            last_id, last = lease.acked
            require(last_id != identity, "it is there twice")
            if ack["n"] > last["n"] and ack["due"] < last["due"]:
                self.contradiction(ack["renter"])
                return
            require(ack["n"] >= last["n"] and ack["due"] >= last["due"], "it goes back")
        held = [one for one in lease.usages + ([lease.agreed] if lease.agreed else []) if one[0] == ack["usage"]]
        require(held and held[0][1]["n"] == ack["n"], "it answers an unknown usage")
        due = held[0][1]["due"]
        require(ack["due"] <= due and (ack["due"] < due) == (ack["partial"] is not None), "more than is due, or a wrong reason")
        lease.usages = [one for one in lease.usages if one[1]["n"] > ack["n"]]
        lease.agreed, lease.acked = held[0], (identity, ack)

    def close(self, trailer, before):
        require(trailer["author"] == self.author, "the trailer is another's")
        require(trailer["count"] == self.count, "the trailer counts other records")
        require(trailer["head"] == self.head, "the trailer names another newest entry")
        require(trailer["digest"] == blake3(before), "the trailer is of other bytes")
        require(self.cut is None, "records are left out, and no checkpoint says which")


def newest_usage(lease):
    return lease.usages[-1] if lease.usages else lease.agreed


def signed_for(lease):
    renter = lease.draft["renter"]
    acked = lease.acked[1]["due"] if lease.acked else 0
    return max(acked, lease.closes.get(renter, (None, 0))[1], lease.close_acks.get(renter, 0))


def verify(data):
    """The verdict's code, the frame's number and a sentence."""
    at, frame, export = 0, 0, None
    try:
        while at < len(data):
            if at + 4 > len(data):
                return 6, frame, "it ends within a length"
            size = int.from_bytes(data[at : at + 4], "little")
            require(1 <= size <= 8192, "an impossible length")
            body = data[at + 4 : at + 4 + size]
            if len(body) < size:
                return 6, frame, "it ends within a frame"
            if export is None:
                header = decode(body)
                require(isinstance(header, dict) and header.get("cut", True) is True, "not a header")
                HEADER({name: value for name, value in header.items() if name != "cut"})
                require(header["format"] == "souk ledger export" and header["version"] == 1, "another format")
                export = Export(header)
            else:
                item = decode(body)
                if item == "cut":
                    export.cut_here()
                    at, frame = at + 4 + size, frame + 1
                    continue
                require(isinstance(item, dict) and len(item) == 1, "not a record")
                ((kind, envelope),) = item.items()
                if kind == "trailer":
                    _, trailer = document("trailer", envelope, export.network)
                    require(at + 4 + size == len(data), "something follows the trailer")
                    export.close(trailer, data[:at])
                    return 0, frame, f"{export.count} records"
                require(kind in ("entry", "usage", "ack"), "an unknown kind of record")
                export.take(kind, envelope)
            at, frame = at + 4 + size, frame + 1
    except Bad as why:
        return 1, frame, str(why)
    return 6, frame, "it ends without its trailer"


def batch(source, sink):
    """Answers `code frame sentence` for each export."""
    while length := source.read(4):
        code, frame, why = verify(source.read(int.from_bytes(length, "little")))
        sink.write(f"{code} {frame} {why}\n".encode())
        sink.flush()


def main(arguments):
    if arguments == ["--batch"]:
        batch(sys.stdin.buffer, sys.stdout.buffer)
        return 0
    if not arguments or arguments[0].startswith("--"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    codes = []
    for name in arguments:
        try:
            with open(0 if name == "-" else name, "rb") as file:
                code, frame, why = verify(file.read())
        except OSError as error:
            print(f"can't read {name}: {error.strerror}", file=sys.stderr)
            return 2
        print(f"{name}: {VERDICTS[code]}: {'' if code == 0 else f'frame {frame}: '}{why}")
        codes.append(code)
    return next((code for code in (1, 6) if code in codes), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
