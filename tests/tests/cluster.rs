//! Private clusters of real nodes: one line makes a member, and nobody else gets anything.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use serde_json::Value;
use souk_tests::{
    docker::{BUSYBOX, nothing_left},
    homes::inside,
    lan::Lan,
    node::{Node, state_of},
    part::have,
    program::{run, souk},
    wait::{until, within},
    world::{World, rent},
};

/// A keeper that runs, as a host with so many slots or none.
fn keeper(world: &World, slots: u16, options: &[&str]) -> Node {
    let setup = world.node("keeper");
    let mut keeper = if slots > 0 { setup.sharing(slots) } else { setup }.stopped();
    let made = keeper.json(&[&["cluster", "new", "lab"], options].concat());
    assert_eq!((made["cluster"].as_str(), made["keeper"].as_str()), (Some("lab"), Some(keeper.id.as_str())));
    keeper.start();
    // Where it is stays where it is, as with a configured port: a node that starts anew for a new key is found again.
    keeper.stop();
    keeper.start();
    world.watch(keeper)
}

fn ticket(keeper: &Node, options: &[&str]) -> String {
    keeper.json(&[&["cluster", "invite"], options].concat())["ticket"].as_str().unwrap().to_owned()
}

/// A node that is a member, and runs.
fn member(world: &World, name: &str, ticket: &str) -> Node {
    let mut node = world.node(name).stopped();
    let joined = node.json(&["cluster", "join", ticket, "--name", name]);
    assert_eq!(joined["name"], name, "{joined}");
    node.start();
    node
}

fn names(node: &Node) -> Vec<String> {
    let view = node.json(&["cluster", "members"]);
    view["members"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap().to_owned()).collect()
}

/// Whether it is connected to nobody.
fn alone(node: &Node) -> bool {
    node.json(&["peers"]).as_array().unwrap().is_empty()
}

fn settled(lease: &Value) -> bool {
    lease["receipt"]["closed"] == true && lease["receipt"]["due"] == lease["receipt"]["acked"]
}

#[test]
fn one_line_leads_to_a_lease_for_nothing_within_a_quota() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let mut keeper = keeper(&world, 3, &[]);
    let renter = member(&world, "alice", &ticket(&keeper, &[]));
    renter.meets(&keeper);
    until("both know both", || {
        (names(&keeper) == ["alice", "keeper"] && names(&renter) == names(&keeper)).then_some(())
    });
    assert!(
        keeper.listen.iter().chain(&renter.listen).all(|a| a.contains("/tcp/")),
        "a key needs TCP: {:?}",
        renter.listen
    );

    // For nothing, with receipts of both.
    let lease = rent(&renter, &keeper, 1, "sleep 600", &["--tick", "1s"]);
    let shown = renter.finds(&lease, "two receipts", |l| l["receipt"]["acked_n"].as_u64() >= Some(2));
    assert_eq!(shown["receipt"]["due"], "0.00", "{shown:#}");
    assert!(shown["receipt"]["counters"]["active_ms"].as_u64() > Some(500), "{shown:#}");
    assert_eq!(renter.souk(&["exec", &lease, "--", "echo", "in"], &[]).ok(), "in\n");

    // No more than the quota, also after a restart of the host.
    let view = keeper.json(&["cluster", "quota", "alice", "--slots", "1"]);
    assert_eq!(view["members"][0]["quota"]["slots_at_once"], 1, "{view:#}");
    let more = |keeper: &Node, why: &str| {
        let ask = renter.ask_of(keeper, 1);
        let (code, sentence) = renter.refused(&["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y"]);
        assert!(
            code == "rejected" && sentence.contains("your cluster lets you have one slot"),
            "{why}: {code}: {sentence}"
        );
    };
    more(&keeper, "a second slot at once");
    keeper.stop();
    keeper.start();
    renter.meets(&keeper);
    renter.reaches(&lease, "running");
    until("the exec answers", || (renter.souk(&["exec", &lease, "--", "true"], &[]).code == 0).then_some(()));
    more(&keeper, "a second slot at once, after a restart");

    // Whoever is put out loses its lease, its peers and the market; a ticket does not bring it back, the keeper's word does.
    let common = ticket(&keeper, &["--uses", "5"]);
    let _ = keeper.json(&["cluster", "remove", "alice", "-y"]);
    assert_eq!(names(&keeper), ["keeper"]);
    let ended = keeper.finds(&lease, "its end", |l| state_of(l).starts_with("ended"));
    assert!(state_of(&ended).contains("removed"), "{}", state_of(&ended));
    until("it has no peers", || alone(&renter).then_some(()));
    let mut renter = renter;
    renter.stop();
    let (code, why) = renter.refused(&["cluster", "join", &common]);
    assert!(code == "rejected" && why.contains("removed from the cluster"), "{code}: {why}");
    let _ = keeper.json(&["cluster", "admit", &renter.id, "--name", "alice"]);
    let _ = renter.json(&["cluster", "join", &common]);
    renter.start();
    renter.meets(&keeper);
    for node in [&keeper, &renter] {
        node.finds(&lease, "closed", settled);
    }
    nothing_left(world.docker(), &keeper);
}

#[test]
fn tickets_say_what_is_wrong_with_them_and_strangers_get_nothing() {
    let world = World::new();
    let mut keeper = keeper(&world, 0, &[]);
    let once = ticket(&keeper, &[]);
    let first = member(&world, "first", &once);
    first.meets(&keeper);

    let node = |name: &str| world.node(name).stopped();
    let refused = |node: &Node, ticket: &str| node.refused(&["cluster", "join", ticket]);
    // Used up.
    let late = node("late");
    let (code, why) = refused(&late, &once);
    assert!(code == "rejected" && why.contains("used"), "{code}: {why}");
    // Expired: by the ticket itself, before anybody is asked.
    let short = ticket(&keeper, &["--expires", "1s"]);
    std::thread::sleep(Duration::from_millis(1500));
    let (_, why) = refused(&late, &short);
    assert!(why.contains("expired"), "{why}");
    // Damaged.
    let good = ticket(&keeper, &[]);
    let middle = good.len() / 2;
    let other = if good.as_bytes()[middle] == b'x' { "y" } else { "x" };
    let bent = format!("{}{other}{}", &good[..middle], &good[middle + 1..]);
    for bad in [&bent, &good[..good.len() - 1], "soukcluster", "hello"] {
        let outcome = late.souk(&["cluster", "join", bad], &[]);
        assert_eq!(outcome.code, 2, "{bad}: {outcome:?}");
    }
    // Of a directory of another network, or of another cluster.
    let elsewhere = world.node("elsewhere").start();
    drop(elsewhere);
    let other = world.node("elsewhere").stopped();
    let (code, why) = refused(&other, &good);
    assert!(code == "wrong_state" && why.contains("another network"), "{code}: {why}");
    let mut rival = node("rival");
    let _ = rival.json(&["cluster", "new", "rivals"]);
    let (code, why) = refused(&rival, &good);
    assert!(code == "wrong_state" && why.contains("`rivals`"), "{code}: {why}");
    rival.start();
    let foreign = ticket(&rival, &[]);
    let mut first = first;
    first.stop();
    let (_, why) = refused(&first, &foreign);
    assert!(why.contains("`lab`"), "{why}");
    first.start();
    // Its keeper is not there.
    let gone = ticket(&rival, &[]);
    rival.stop();
    let (code, why) = refused(&late, &gone);
    assert!(code == "unreachable" && why.contains("not reached"), "{code}: {why}");

    // A node of the public network that knows the address gets nothing, and keeps out no member.
    let stranger = world.node("stranger").knows(&keeper.listen[0]).start();
    let joined = member(&world, "second", &good);
    joined.meets(&keeper);
    assert!(alone(&stranger));
    until("all know all", || (names(&first) == ["first", "keeper", "second"]).then_some(()));

    // Without the keeper the members go on, and know each other after a restart.
    keeper.stop();
    let mut joined = joined;
    joined.stop();
    joined.start();
    joined.meets(&first);
}

#[test]
fn a_list_alone_keeps_quic_and_a_new_key_shuts_out_who_was_removed() {
    let world = World::new();
    let open = keeper(&world, 0, &["--no-key"]);
    let other = member(&world, "other", &ticket(&open, &[]));
    other.meets(&open);
    assert!(open.listen.iter().any(|a| a.contains("/quic-v1")), "{:?}", open.listen);
    let (code, why) = open.refused(&["cluster", "rotate", "-y"]);
    assert!(code == "wrong_state" && why.contains("no key"), "{code}: {why}");
    // A stranger with the address and without the list.
    let stranger = world.node("stranger").knows(&open.listen[0]).start();
    std::thread::sleep(Duration::from_secs(2));
    assert!(alone(&stranger));
    drop((open, other));

    let world = World::new();
    let keeper = keeper(&world, 0, &[]);
    let many = ticket(&keeper, &["--uses", "3"]);
    let stays = member(&world, "stays", &many);
    let mut away = member(&world, "away", &many);
    stays.meets(&keeper);
    away.meets(&keeper);
    away.stop();
    let view = keeper.json(&["cluster", "rotate", "-y"]);
    assert_eq!(view["has_key"], true);
    let key = |node: &Node| std::fs::read(node.dir().join("cluster.key")).unwrap();
    within(Duration::from_secs(60), "who is connected has the new key, and is back", || {
        (key(&stays) == key(&keeper)).then_some(())
    });
    stays.meets(&keeper);
    until("they meet with the new key", || (names(&stays).len() == 3).then_some(()));
    // Who was away needs a new ticket, and keeps its place.
    assert_ne!(key(&away), key(&keeper));
    let again = ticket(&keeper, &[]);
    let _ = away.json(&["cluster", "join", &again]);
    away.start();
    away.meets(&keeper);
}

#[test]
fn on_a_local_network_without_a_way_out_members_find_each_other() {
    let Some(mut lan) = Lan::new() else { return };
    let (one, two) = (lan.machine(), lan.machine());
    let world = World::new();
    let mut keeper = world.node("keeper").within(&one.namespace).stopped();
    let _ = keeper.json(&["cluster", "new", "lab"]);
    keeper.start();
    let ticket = ticket(&keeper, &[]);
    let mut member = world.node("member").within(&two.namespace).stopped();
    let mut join = inside(&two.namespace, souk());
    join.arg("--dir").arg(member.dir()).args(["--json", "cluster", "join", &ticket]);
    assert_eq!(run(&mut join, &[]).json()["members"], 2);
    member.start();
    member.meets(&keeper);

    // With nothing but the list and the key: no address is known.
    for node in [&mut keeper, &mut member] {
        node.stop();
        std::fs::remove_file(node.dir().join("peers.json")).ok();
    }
    keeper.start();
    member.start();
    member.meets(&keeper);

    // Where it is switched off it does not happen.
    for node in [&mut keeper, &mut member] {
        node.stop();
        std::fs::remove_file(node.dir().join("peers.json")).ok();
        node.set("SOUK_CLUSTER_MDNS", "false");
    }
    keeper.start();
    member.start();
    std::thread::sleep(Duration::from_secs(5));
    assert!(alone(&member));
}
