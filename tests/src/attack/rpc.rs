//! Gossipsub's messages, as bytes: whatever an attacker may want to say, with no rule kept.

/// A protobuf integer.
#[must_use]
pub fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

/// A field of bytes.
#[must_use]
pub fn field(number: u64, body: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(body.len() as u64), body.to_vec()].concat()
}

fn number(field: u64, n: u64) -> Vec<u8> {
    [varint(field << 3), varint(n)].concat()
}

/// An RPC with its length before it, as it goes over a stream.
#[must_use]
pub fn framed(rpc: &[u8]) -> Vec<u8> {
    [varint(rpc.len() as u64), rpc.to_vec()].concat()
}

/// A subscription to a topic, or the end of one.
#[must_use]
pub fn subscription(topic: &str, wanted: bool) -> Vec<u8> {
    field(1, &[number(1, wanted.into()), field(2, topic.as_bytes())].concat())
}

/// A message for a topic.
#[must_use]
pub fn publication(topic: &str, data: &[u8]) -> Vec<u8> {
    field(2, &[field(2, data), field(4, topic.as_bytes())].concat())
}

/// "I have these."
#[must_use]
pub fn ihave(topic: &str, ids: &[[u8; 32]]) -> Vec<u8> {
    let ids: Vec<u8> = ids.iter().flat_map(|id| field(2, id)).collect();
    field(3, &field(1, &[field(1, topic.as_bytes()), ids].concat()))
}

/// "Send me these."
#[must_use]
pub fn iwant(ids: &[[u8; 32]]) -> Vec<u8> {
    let ids: Vec<u8> = ids.iter().flat_map(|id| field(1, id)).collect();
    field(3, &field(2, &ids))
}

/// "Take me into the mesh."
#[must_use]
pub fn graft(topic: &str) -> Vec<u8> {
    field(3, &field(3, &field(1, topic.as_bytes())))
}

/// "Out of the mesh", with others to go to.
#[must_use]
pub fn prune(topic: &str, backoff: u64) -> Vec<u8> {
    let others: Vec<u8> = (0..16u8).flat_map(|n| field(2, &field(1, &[n; 38]))).collect();
    field(3, &field(4, &[field(1, topic.as_bytes()), others, number(3, backoff)].concat()))
}
