//! What passes between a renter and its instance through the host's node is counted in the receipts, once, and outlives the node.
#![allow(clippy::unwrap_used, clippy::panic)]

use souk_tests::{
    node::{Node, state_of},
    part::have,
    world::{World, rent},
};

const MIB: u64 = 1 << 20;

fn counted(node: &Node, lease: &str) -> (u64, u64) {
    let counters = &node.show(lease)["receipt"]["counters"];
    (counters["rx_bytes"].as_u64().unwrap_or(0), counters["tx_bytes"].as_u64().unwrap_or(0))
}

#[test]
fn bytes_through_the_node_are_on_the_receipt_and_stay_there() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, renter) = world.pair(1);
    let line = "head -c 1048576 /dev/zero | tr '\\0' x; while :; do sleep 1; done";
    let lease = rent(&renter, &host, 1, line, &["--egress", "none", "--tick", "1s"]);
    let sh = |line: &str| renter.souk(&["exec", "-i", &lease, "--", "sh", "-c", line], &vec![7; 3 << 20]).ok();

    assert_eq!(sh("head -c 3145728 | wc -c").trim(), "3145728");
    assert_eq!(sh("head -c 2097152 /dev/zero | tr '\\0' x").len(), 2 << 20);
    let within = |(rx, tx): (u64, u64)| (3 * MIB..5 * MIB).contains(&rx) && (2 * MIB..3 * MIB).contains(&tx);
    let shown = renter.finds(&lease, "a receipt with the traffic", |l| {
        let counters = &l["receipt"]["counters"];
        counters["rx_bytes"].as_u64() >= Some(3 * MIB) && counters["tx_bytes"].as_u64() >= Some(2 * MIB)
    });
    assert!(within(counted(&renter, &lease)), "counted more than once: {:#}", shown["receipt"]);

    // Reading the log costs nothing.
    let before = counted(&renter, &lease);
    assert!(renter.souk(&["logs", &lease], &[]).ok().len() >= 1 << 20);
    let n = renter.show(&lease)["receipt"]["n"].as_u64().unwrap();
    renter.finds(&lease, "two more receipts", |l| l["receipt"]["n"].as_u64() >= Some(n + 2));
    assert_eq!(counted(&renter, &lease), before);

    // A node killed and started again goes on from there.
    host.kill();
    host.start();
    renter.finds(&lease, "running again", |l| state_of(l) == "running" && l["receipt"]["n"].as_u64() > Some(n + 2));
    assert_eq!(sh("head -c 1048576 | wc -c").trim(), "1048576");
    renter.finds(&lease, "more traffic on top", |l| {
        l["receipt"]["counters"]["rx_bytes"].as_u64() >= Some(before.0 + MIB)
    });
}
