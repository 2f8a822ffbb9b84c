//! Every numeric limit of the protocol, with its unit and its reason.

use crate::{money::Amount, time::Millis};

/// Bytes of one signed offer. An 8-GPU machine with all fields takes some 1,200.
pub const OFFER_BYTES: usize = 4096;
/// Machines one host may offer, so that one key can't fill other people's books.
pub const MACHINES_PER_HOST: usize = 64;
/// Offers and tombstones a book keeps: some 330 MB at the usual size, by the books of `tests/scale`.
pub const BOOK_OFFERS: usize = 100_000;
/// How far ahead of our clock an offer may be dated before it is put aside.
pub const CLOCK_SKEW: Millis = Millis::from_mins(2);
/// The longest life of an offer; also how long its tombstone is kept.
pub const OFFER_LIFE: Millis = Millis::from_mins(30);
/// An unchanged offer is issued again after this long (spread by ±20 % by the caller).
pub const OFFER_REPUBLISH: Millis = Millis::from_mins(10);
/// The least time between two offers of one machine that others will take.
pub const OFFER_INTERVAL: Millis = Millis::from_secs(2);
/// A change that matters little, the number of free slots for one, goes out this long after the last offer.
pub const OFFER_LULL: Millis = Millis::from_secs(30);
/// Offers of one machine accepted in a burst before [`OFFER_INTERVAL`] holds.
pub const OFFER_BURST: u32 = 4;

/// Slots of one machine.
pub const SLOTS: u16 = 256;
/// Groups of equal GPUs in one offer.
pub const GPU_GROUPS: usize = 16;
/// Bytes of a name: GPU model, CPU model, country, payment method.
pub const NAME_BYTES: usize = 64;
/// Bytes of what names a device in a placement: a GPU's UUID, or the paths of a declared one.
pub const DEVICE_BYTES: usize = 256;
/// Registries an offer may name.
pub const REGISTRIES: usize = 32;
/// Attesters whose word an offer may ask for: with their keys it stays under [`OFFER_BYTES`].
pub const ATTESTERS: usize = 8;
/// Bytes of an image reference.
pub const IMAGE_REFERENCE_BYTES: usize = 512;
/// Bytes of a signed draft.
pub const DRAFT_BYTES: usize = 4096;
/// Bytes of a signed counter-offer.
pub const COUNTER_BYTES: usize = 1024;
/// Bytes of one entry of an author chain. The largest holds a draft.
pub const ENTRY_BYTES: usize = 6144;
/// Bytes of a head report, and of its countersignature: some 250.
pub const HEAD_BYTES: usize = 512;
/// Instances of one node, and numbers of its entries, that one message may speak of; also how many instances a witness remembers.
pub const INSTANCES: usize = 4;
/// Meetings that one peer may ask for in a minute: each costs some signatures.
pub const MEETINGS_PER_MINUTE: u32 = 60;
/// Bytes of a proof of a fork: two of the largest documents that one is made of, which are entries, with their signatures and
/// what is around them. Two heads take some 600.
pub const PROOF_BYTES: usize = 2 * ENTRY_BYTES + 512;
/// Proofs of forks kept, one for each author, so that cheap keys can't fill the store.
pub const PROOFS: usize = 10_000;
/// Of them, those about keys that concern nobody here: they may come to.
pub const STRANGE_PROOFS: usize = 1024;
/// Bytes of proofs in one answer to a meeting …
pub const FORKS_BYTES: usize = 64 * 1024;
/// … and in all those to one peer in a minute.
pub const FORKS_BYTES_PER_MINUTE: usize = 256 * 1024;
/// Proofs that one peer passes on by gossip in a minute and that are looked at; what is beyond is fetched at meetings.
pub const PROOFS_PER_MINUTE: u32 = 60;
/// Records in one answer to a node that restores its ledger, at most 8 KiB each.
pub const RECALL_RECORDS: usize = 64;
/// Such answers one node asks a peer for, and records a peer looks for at all: beyond, a ledger is not to be restored so.
pub const RECALL_PAGES: u32 = 64;
/// Bytes of a usage or an acknowledgement.
pub const RECEIPT_BYTES: usize = 1024;
/// Bytes of a workload: command, environment, user.
pub const WORKLOAD_BYTES: usize = 64 * 1024;
/// Bytes of the script that an instance runs at each start. Longer ones belong into the image, or are fetched by this one.
pub const ONSTART_BYTES: usize = 32 * 1024;
/// Arguments of a command.
pub const WORKLOAD_ITEMS: usize = 1024;
/// Variables of an environment: the runtime takes 512, and the host adds some of its own.
pub const ENVIRONMENT_ITEMS: usize = 500;
/// Bytes of a sentence sent to a person on the other side.
pub const SENTENCE_BYTES: usize = 512;
/// Bytes of a request between nodes.
pub const REQUEST_BYTES: usize = 256 * 1024;
/// Bytes of an answer between nodes.
pub const RESPONSE_BYTES: usize = 1024 * 1024;
/// Public ports of one lease: they are in its draft.
pub const PORTS: usize = 16;
/// Public ports a host may have for its guests.
pub const PUBLIC_PORTS: u16 = 4096;
/// Bytes of one frame on a log or exec stream.
pub const FRAME_BYTES: usize = 64 * 1024;
/// Bytes of a registry login's registry or user.
pub const LOGIN_NAME_BYTES: usize = 255;
/// Bytes of its password: cloud registries give tokens of some kilobytes.
pub const LOGIN_PASSWORD_BYTES: usize = 16 * 1024;
/// Public keys that may get into one instance over SSH.
pub const SSH_KEYS: usize = 16;
/// Characters of one such key, as OpenSSH writes it.
pub const SSH_KEY_BYTES: usize = 2048;
/// Bytes of a host name to connect to.
pub const HOST_NAME_BYTES: usize = 255;
/// Ids in one page of a book's index.
pub const BOOK_PAGE: usize = 4096;
/// Offers fetched by one request, so that the answer stays under [`RESPONSE_BYTES`].
pub const BOOK_FETCH: usize = 128;

/// Bytes of a signed membership: some 170.
pub const MEMBERSHIP_BYTES: usize = 256;
/// The longest membership: five years.
pub const MEMBERSHIP_LIFE: Millis = Millis::from_hours(5 * 366 * 24);
/// A membership with less life left is not put into an offer any more, so that no offer ends right after it was made.
pub const MEMBERSHIP_LEAST: Millis = Millis::from_mins(2);
/// Bytes of what an owner orders a node to do: the settings of one machine.
pub const ORDER_BYTES: usize = 16 * 1024;
/// The longest life of an order: it is sent when it is given, so this covers a slow dial and clocks that differ.
pub const ORDER_LIFE: Millis = Millis::from_mins(2);
/// Orders remembered against being carried out twice. Beyond it the oldest goes, and everything given before it is refused.
pub const ORDERS_REMEMBERED: usize = 1024;
/// Bytes of the answer to an order.
pub const ORDER_ANSWER_BYTES: usize = 512 * 1024;
/// Machines of the same owner that a node keeps an eye on.
pub const SISTERS: usize = 1024;

/// Proposals in one negotiation.
pub const ROUNDS: u8 = 8;
/// How long a counter-offer holds.
pub const COUNTER_LIFE: Millis = Millis::from_secs(30);
/// How long after the draft the renter may still commit.
pub const COMMIT_WITHIN: Millis = Millis::from_secs(60);
/// How long after the last moment to commit the host's answer must come.
pub const CONFIRM_WITHIN: Millis = Millis::from_secs(30);
/// How long a host's owner may take to answer a question about a proposal, with all that is between: their program has two
/// seconds of it.
pub const OWNER_WITHIN: Millis = Millis::from_secs(5);
/// Negotiations a renter runs at once.
pub const NEGOTIATIONS: usize = 64;
/// Open leases a node keeps, both sides together.
pub const LEASES: usize = 10_000;

/// The highest price of a lease for an hour: a million of its currency. What a year of it costs still fits in an [`Amount`].
pub const PRICE_HOUR: Amount = Amount(1_000_000_000_000_000);
/// A raised bid is at least this share (per mille) above the one before.
pub const BID_RAISE_PERMILLE: u64 = 50;
/// Amendments of one lease.
pub const AMENDMENTS: u32 = 100_000;
/// Amendments of one lease a renter may ask for in a minute.
pub const AMENDS_PER_MINUTE: u32 = 20;
/// How long an `amend` may be answered with an `amended`.
pub const AMEND_WITHIN: Millis = Millis::from_mins(2);
/// The longest eviction notice.
pub const NOTICE: Millis = Millis::from_hours(24);
/// The longest quantum.
pub const QUANTUM: Millis = Millis::from_hours(24);
/// Entries in one update of a lease.
pub const UPDATE_ENTRIES: usize = 32;
/// Bids waiting for slots of one machine.
pub const WAITING_BIDS: usize = 1024;
/// Of them, those of one renter, so that nobody takes all the places alone.
pub const WAITING_BIDS_OF_RENTER: usize = 32;
/// The shortest term that can be reserved.
pub const RESERVED_TERM: Millis = Millis::from_hours(1);
/// How long before its end a lease is extended by itself, where the renter allows it.
pub const EXTEND_BEFORE: Millis = Millis::from_mins(10);
/// A renter is told so long before its contract ends, or in the last tenth of it if that is shorter.
pub const EXPIRY_TOLD: Millis = Millis::from_hours(1);
/// Maintenance windows a host announces.
pub const MAINTENANCE_WINDOWS: usize = 8;

/// The shortest and longest time between two receipts.
pub const TICK: (Millis, Millis) = (Millis::from_secs(1), Millis::from_hours(1));
/// The tick when nobody asks for another.
pub const TICK_DEFAULT: Millis = Millis::from_secs(60);
/// How long an ended contract's disk is kept.
pub const DISK_KEPT: Millis = Millis::from_hours(48);
/// How long preparing (pulling, creating) may go on without getting on.
pub const PREPARE_WITHIN: Millis = Millis::from_mins(10);
/// How long it may take, all in all.
pub const PREPARE_AT_MOST: Millis = Millis::from_hours(2);
/// From SIGTERM to SIGKILL when an instance is stopped.
pub const STOP_GRACE: Millis = Millis::from_secs(10);
/// The longest contract: a year.
pub const TERM: Millis = Millis::from_hours(366 * 24);
/// A renter's meter may differ from the host's by this share (per mille) …
pub const METER_TOLERANCE_PERMILLE: u64 = 10;
/// … plus this.
pub const METER_TOLERANCE: Millis = Millis::from_secs(5);
/// A program in an instance may say what it is so often, and is told to wait otherwise.
pub const LABEL_EVERY: Millis = Millis::from_secs(10);
/// … and so many times: each is an event, and they are not to push out what else has happened to the lease.
pub const LABELS: usize = 64;
/// Events kept and sent for one lease.
pub const EVENTS_PER_LEASE: usize = 256;

/// The smallest volume, in MB: below it a file system is all overhead.
pub const VOLUME_LEAST_MB: u64 = 100;
/// Volumes attached to one instance.
pub const VOLUMES: usize = 16;
/// Volumes one renter may have on one machine.
pub const VOLUMES_OF_RENTER: usize = 64;
/// Bytes of the path at which a volume is attached.
pub const VOLUME_PATH_BYTES: usize = 1024;

/// How much use, at its price, a first slice is worth; where the host says less, less.
pub const FIRST_SLICE: Millis = Millis::from_mins(5);
/// How long a host takes at most to see that a first payment has arrived. After it the open is void.
pub const PAYMENT_WITHIN: Millis = Millis::from_secs(20);
/// How long a difference between what a host claims and what its renter acknowledges may stand.
pub const DISPUTED: Millis = Millis::from_hours(24);
/// How long after a contract's end and its disk's a renter waits for the host's close before it closes the lease by itself.
pub const CLOSE_WITHIN: Millis = Millis::from_hours(72);
/// Payments of one peer, or to one, that wait for an answer.
pub const PAYMENTS_WAITING: usize = 16;
/// Accounts of peers with whom there was never a lease, in which something has arrived or is looked for: payments of strangers open
/// no more, but for those that come with an open.
pub const STRANGE_ACCOUNTS: usize = 256;
/// Of them, those of one peer.
pub const STRANGE_ACCOUNTS_PER_PEER: usize = 2;
/// Accounts of strangers in which nothing has arrived that are remembered; the others are forgotten.
pub const EMPTY_ACCOUNTS: usize = 1024;
/// Accounts of one peer, one for each currency.
pub const ACCOUNTS_PER_PEER: usize = 8;
/// Payments of one peer that are taken in an hour, opens' payments not counted among them.
pub const PAYMENTS_PER_HOUR: u32 = 60;
/// How often the answer to one payment may be corrected, no more than once a minute.
pub const CORRECTIONS: u8 = 4;
/// Payments of one peer that did not arrive, in all currencies, after which but one an hour is taken until one does.
pub const PAYMENTS_MISSED: u8 = 8;
/// How old a payment of this node's, or its payee's last answer, is at least before its owner may hold it for lost.
pub const LOST_AFTER: Millis = Millis::from_mins(10);

/// Members of a private cluster: a list of so many, with the longest names, has some 125 KB, and fits in one answer.
pub const CLUSTER_MEMBERS: usize = 1024;
/// Bytes of a signed member list: [`CLUSTER_MEMBERS`] members of at most 125 bytes each, and what is around them.
pub const MEMBER_LIST_BYTES: usize = 160 * 1024;
/// Characters of a cluster's name, and of a member's.
pub const CLUSTER_NAME_BYTES: usize = 32;
/// Addresses in a ticket: some for each way of reaching the keeper.
pub const TICKET_ADDRESSES: usize = 8;
/// Bytes of one of them, as text: through a relay, with two peer ids, it takes some 200.
pub const TICKET_ADDRESS_BYTES: usize = 256;
/// Characters of a ticket, so that it stays one line that a person can send …
pub const TICKET_CHARS: usize = 2048;
/// … and its bytes before they are written in base58, which makes three of them some four characters.
pub const TICKET_BYTES: usize = 1440;
/// The longest life of a ticket: it holds secrets, and is to be forgotten.
pub const TICKET_LIFE: Millis = Millis::from_hours(30 * 24);
/// Tickets of a cluster that can still be redeemed, at once; …
pub const TICKETS_OPEN: usize = 256;
/// … and those used up or expired that are remembered, so that who comes with one is told …
pub const TICKETS_PAST: usize = 256;
/// … for so long.
pub const TICKET_REMEMBERED: Millis = Millis::from_hours(30 * 24);
/// Removed nodes that a cluster's keeper remembers, 32 bytes each: no ticket brings them back.
pub const REMOVED_REMEMBERED: usize = 4096;
/// Bytes of a message of the exchange by which a ticket is redeemed, but for the last: at most some 90.
pub const KNOCK_BYTES: usize = 256;
/// Bytes of the last one, which brings the member list.
pub const KNOCK_ANSWER_BYTES: usize = MEMBER_LIST_BYTES + 256;
/// The time over which a member's slot hours are counted: a month, whenever it begins.
pub const QUOTA_WINDOW: Millis = Millis::from_hours(30 * 24);
