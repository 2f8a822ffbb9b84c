//! Payments between real nodes: by hand, by programs that are killed, hang, talk junk or lie, and for a lease that asks for them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde_json::Value;
use souk_protocol::Amount;
use souk_tests::{
    docker::BUSYBOX,
    node::Node,
    part::have,
    program::{run, souk},
    wait::until,
    world::{World, lease_of},
};

/// A bank for payers and payees: a folder with a file for each reference that was really paid. What it does instead is in `mode`.
const BANK: &str = r#"#!/bin/sh
cd DIR || exit 9
q=$(cat)
field() { printf %s "$q" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
ref=$(field reference); action=$(field action)
echo "$action $ref" >> calls
case "$(cat mode)" in
  junk) echo 'paid, I think'; exit 0 ;;
  hang) sleep 1000 & wait ;;
  big) exec head -c 1000000000 /dev/zero ;;
  dies) kill -9 $$ ;;
  refuses) [ "$ref" = p-refuses ] && { echo '{"state":"failed","why":"no funds"}'; exit 0; } ;;
esac
if [ "$action" = pay ]; then
  # Money moves once by reference; and its program may die after that.
  if mkdir "paid/$ref" 2>/dev/null; then echo "$ref $(field amount)" >> ledger; fi
  [ "$(cat mode)" = slow ] && sleep 0.3
  echo '{"state":"paid","receipt":"bank 7"}'
elif [ -d "paid/$ref" ]; then
  echo '{"state":"arrived"}'
else
  echo '{"state":"pending","after_s":1}'
fi
"#;

struct Bank(PathBuf);

impl Bank {
    fn open(root: &Path) -> Self {
        let dir = root.join("bank");
        fs::create_dir_all(dir.join("paid")).unwrap();
        fs::write(dir.join("bank.sh"), BANK.replace("DIR", &dir.display().to_string())).unwrap();
        let bank = Self(dir);
        bank.mode("good");
        bank
    }

    fn mode(&self, mode: &str) {
        fs::write(self.0.join("mode.new"), mode).unwrap();
        fs::rename(self.0.join("mode.new"), self.0.join("mode")).unwrap();
    }

    fn config(&self) -> String {
        let script = self.0.join("bank.sh");
        format!("[[payment.programs]]\nmethod = \"bank\"\ncommand = \"sh {}\"\ntimeout = \"5s\"\n", script.display())
    }

    fn lines(&self, file: &str) -> Vec<String> {
        fs::read_to_string(self.0.join(file)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn calls(&self, call: &str) -> usize {
        self.lines("calls").iter().filter(|line| *line == call).count()
    }
}

fn amount(value: &Value) -> Amount {
    value.as_str().unwrap_or_else(|| panic!("no amount: {value}")).parse().unwrap()
}

/// The account of a node with another, in its first currency, once it shows something.
fn account(node: &Node, other: &Node, what: &str, look: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let found = souk_tests::wait::poll(souk_tests::wait::PATIENCE, || {
        last = node.json(&["account", &other.id]);
        look(&last).then(|| last.clone())
    });
    found.unwrap_or_else(|| panic!("the account of {} never showed: {what}; it is {last:#}", node.name()))
}

fn is(account: &Value, field: &str, text: &str) -> bool {
    account["accounts"][0][field] == text
}

#[test]
fn what_people_paid_by_hand_counts_as_far_as_the_payee_says_and_once() {
    let world = World::new();
    let payee = world.node("payee").start();
    let payer = world.node("payer").knows(&payee.listen[0]).start();
    payer.meets(&payee);
    let pay = ["pay", payee.id.as_str(), "5.00", "--reference", "transfer 1"];
    let paid = payer.json(&pay);
    assert_eq!((&paid["state"], &paid["method"]), (&"settled".into(), &"manual".into()));
    // Said again it is the same payment; a different one needs another name.
    assert_eq!(payer.json(&pay)["at_ms"], paid["at_ms"]);
    let (code, sentence) = payer.refused(&["pay", &payee.id, "6.00", "--reference", "transfer 1"]);
    assert!(code == "wrong_state" && sentence.contains("another payment"), "{sentence}");

    let waits =
        account(&payee, &payer, "a payment to confirm", |a| a["claims"].as_array().is_some_and(|c| c.len() == 1));
    assert_eq!(
        (&waits["claims"][0]["looked_for_by"], &waits["claims"][0]["reference"]),
        (&"person".into(), &"transfer 1".into())
    );
    assert!(is(&waits, "received_claimed", "5.00") && is(&waits, "received", "0.00"), "nothing counts yet: {waits}");
    assert_eq!(payee.json(&["account"])["accounts"][0]["to_confirm"], 1);
    // A payee that is killed is asked again.
    let (code, _) = payee.refused(&["account", &payer.id, "--received", "5.01"]);
    assert_eq!(code, "bad_request", "more than was said to be paid");
    let _ = payee.json(&["account", &payer.id, "--received", "3.00"]);
    account(&payer, &payee, "what has arrived", |a| is(a, "paid", "5.00") && is(a, "paid_acked", "3.00"));
    let (code, _) = payee.refused(&["account", &payer.id, "--received", "2.00"]);
    assert_eq!(code, "not_found", "it is answered");

    // Both tell the same month, mirrored; nothing was used, so what arrived was paid ahead.
    let month = payee.json(&["account", &payer.id])["settlements"][0]["ack_at_ms"].as_u64().unwrap();
    let month = souk_ledger::months::Month::of(souk_protocol::Timestamp(month)).to_string();
    let (ours, theirs) = (payer.json(&["invoice", "--month", &month]), payee.json(&["invoice", "--month", &month]));
    assert_eq!(ours[0]["paid"], theirs[0]["received"]);
    assert_eq!((&ours[0]["closing"], &ours[0]["closing_owed_to_us"]), (&"3.00".into(), &true.into()), "{ours}");
    assert_eq!((&theirs[0]["closing"], &theirs[0]["closing_owed_to_us"]), (&"3.00".into(), &false.into()));
    assert_eq!(payer.json(&["invoice", "--month", "2001-01"]), serde_json::json!([]));
    for (arguments, code) in [
        (["invoice", "--month", "2026-13"], "bad_request"),
        (["account", "nobody", "--received=1"], "not_found"),
        (["pay", "nobody", "1"], "not_found"),
    ] {
        assert_eq!(payer.refused(&arguments).0, code, "{arguments:?}");
    }
    let (code, sentence) = payer.refused(&["pay", &payee.id, "1", "--method", "bank"]);
    assert!(code == "bad_request" && sentence.contains("no program"), "{sentence}");
}

#[test]
fn whatever_a_program_does_nothing_is_paid_twice_and_nothing_is_believed_that_was_not_said() {
    let world = World::new();
    let bank = Bank::open(world.path());
    let payee = world.node("payee").config(&bank.config()).start();
    let payer = world.node("payer").config(&bank.config()).knows(&payee.listen[0]).start();
    payer.meets(&payee);
    let pay =
        |reference: &str| payer.json(&["pay", &payee.id, "1.50", "--method", "bank", "--reference", reference, "-d"]);
    let shows = |reference: &str, what: &str, look: &dyn Fn(&Value) -> bool| {
        account(&payer, &payee, what, |a| {
            a["payments"].as_array().unwrap().iter().any(|p| p["reference"] == reference && look(p))
        })
    };
    for (mode, problem) in [("junk", "answer is none"), ("hang", "did not end"), ("big", ""), ("dies", "ended")] {
        bank.mode(mode);
        let reference = format!("p-{mode}");
        assert_eq!(pay(&reference)["state"], "intended");
        shows(&reference, problem, &|p| {
            p["state"] == "intended" && p["problem"].as_str().is_some_and(|why| why.contains(problem))
        });
        assert!(!bank.0.join("paid").join(&reference).exists());
    }
    bank.mode("refuses");
    pay("p-refuses");
    shows("p-refuses", "it failed", &|p| p["state"] == "failed" && p["problem"] == "no funds");
    assert_eq!(bank.calls("pay p-refuses"), 1, "a refusal is a refusal");
    bank.mode("good");
    pay("p-good");
    for reference in ["p-junk", "p-hang", "p-big", "p-dies", "p-good"] {
        shows(reference, "it is settled", &|p| p["state"] == "settled" && p["receipt"] == "bank 7");
    }
    assert_eq!(bank.calls("pay p-good"), 1, "one that is paid is not asked for again");
    assert_eq!(bank.lines("ledger").len(), 5);
    account(&payee, &payer, "all of it", |a| is(a, "received", "7.50"));
    account(&payer, &payee, "all of it", |a| is(a, "paid", "7.50") && is(a, "paid_acked", "7.50"));

    // A liar claims another's money: by a reference that is used up, and by one that nobody has paid.
    let liar = world.node("liar").config(&bank.config()).knows(&payee.listen[0]).start();
    liar.meets(&payee);
    let lies = world.path().join("lies.sh");
    fs::write(&lies, "cat > /dev/null; echo '{\"state\":\"paid\"}'\n").unwrap();
    let script = bank.0.join("bank.sh");
    let config = fs::read_to_string(liar.dir().join("config.toml")).unwrap();
    let mut liar = liar;
    liar.stop();
    fs::write(
        liar.dir().join("config.toml"),
        config.replace(&script.display().to_string(), &lies.display().to_string()),
    )
    .unwrap();
    liar.start();
    liar.meets(&payee);
    for reference in ["p-good", "never-paid"] {
        let paid = liar.json(&["pay", &payee.id, "1.50", "--method", "bank", "--reference", reference]);
        assert_eq!(paid["state"], "settled");
    }
    let seen = account(&payee, &liar, "the first lie is answered", |a| {
        let told = a["settlements"].as_array().unwrap();
        told.iter().any(|s| s["reference"] == "p-good" && s["arrived_total"] == "0.00")
    });
    assert!(is(&seen, "received", "0.00"), "{seen}");
    let seen = account(&payee, &liar, "the second is looked for", |a| {
        bank.calls("check never-paid") > 1 && a["claims"][0]["reference"] == "never-paid"
    });
    assert!(is(&seen, "received", "0.00"), "{seen}");
}

#[test]
fn a_payer_killed_at_any_moment_pays_each_reference_once_and_forgets_none() {
    let world = World::new();
    let bank = Bank::open(world.path());
    let payee = world.node("payee").config(&bank.config()).start();
    let mut payer = world.node("payer").config(&bank.config()).knows(&payee.listen[0]).start();
    let seed = std::env::var("SOUK_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    println!("SOUK_TEST_SEED={seed}");
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    bank.mode("slow");
    let mut promised = BTreeSet::new();
    for round in 0..12 {
        let reference = format!("r-{round}");
        let asked = payer.souk(&["pay", &payee.id, "0.25", "--method", "bank", "--reference", &reference, "-d"], &[]);
        if asked.code == 0 {
            promised.insert(reference);
        }
        // Before the program has paid, while it answers, before it is signed, after.
        std::thread::sleep(Duration::from_millis(u64::from(dice.next_u32() % 700)));
        payer.kill();
        payer.start();
    }
    assert!(promised.len() >= 10, "too few were taken: {promised:?}");
    let done = account(&payer, &payee, "all are settled", |a| {
        let settled: BTreeSet<String> =
            a["settlements"].as_array().unwrap().iter().map(|s| s["reference"].as_str().unwrap().to_owned()).collect();
        promised.is_subset(&settled)
    });
    let told: Vec<&str> =
        done["settlements"].as_array().unwrap().iter().map(|s| s["reference"].as_str().unwrap()).collect();
    let paid: BTreeSet<String> = bank.lines("ledger").iter().map(|l| l.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(bank.lines("ledger").len(), paid.len(), "something was paid twice: {:?}", bank.lines("ledger"));
    assert_eq!(told.iter().map(|t| (*t).to_owned()).collect::<BTreeSet<_>>(), paid, "what is paid is said");
    assert_eq!(told.len(), paid.len(), "something was said twice: {told:?}");
    let all = Amount(250_000_000 * paid.len() as u64).to_string();
    account(&payee, &payer, "all has arrived", |a| is(a, "received", &all));
    account(&payer, &payee, "all is confirmed", |a| is(a, "paid_acked", &all));
    // What is known to be paid is not asked for again.
    let before = bank.lines("calls").len();
    payer.kill();
    payer.start();
    let last = payer.json(&["pay", &payee.id, "0.25", "--method", "bank", "--reference", "last"]);
    assert_eq!(last["state"], "settled");
    let more = bank.lines("calls").split_off(before);
    assert!(more.iter().all(|call| call.ends_with(" last")), "{more:?}");
    assert_eq!(payer.json(&["ledger", "check"])["faults"], serde_json::json!([]));
    assert_eq!(payee.json(&["ledger", "check"])["faults"], serde_json::json!([]));
}

#[test]
fn a_lease_is_paid_by_programs_and_both_sides_write_the_same_invoice() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let bank = Bank::open(world.path());
    let host = format!("{}[host.payment]\nmethods = [\"bank\"]\n", bank.config());
    let host = world.watch(world.node("host").host(1, "600").config(&host).start());
    let config = format!("{}[renter.payment]\ndaily_limit = \"120\"\n", bank.config());
    let renter = world.node("renter").config(&config).knows(&host.listen[0]).start();
    renter.meets(&host);
    let ask = renter.ask_of(&host, 1);
    let rent = ["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y", "--tick", "1s", "--label", "paid job"];
    let outcome = renter.souk(&[&rent[..], &["--", "sh", "-c", "while :; do sleep 1; done"]].concat(), &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let lease = lease_of(&outcome.lines());
    let first = account(&renter, &host, "the first payment is confirmed", |a| {
        a["settlements"].as_array().is_some_and(|s| !s.is_empty()) && a["accounts"][0]["paid_acked"] != "0.00"
    });
    assert!(first["payments"].as_array().unwrap().iter().all(|p| p["by"] == "node"), "{first}");
    renter.finds(&lease, "receipts", |l| l["receipt"]["acked_n"].as_u64() >= Some(3));
    let _ = renter.json(&["destroy", "-y", &lease]);
    for node in [&host, &renter] {
        node.finds(&lease, "closed", |l| {
            l["receipt"]["closed"] == true && l["receipt"]["due"] == l["receipt"]["acked"]
        });
    }
    // Never more than allowed, whatever was asked for.
    let spent: u64 =
        bank.lines("ledger").iter().map(|l| l.split(' ').nth(1).unwrap().parse::<Amount>().unwrap().0).sum();
    assert!(spent <= 120_000_000_000, "{spent}");
    until("both have the same payments", || {
        let (a, b) = (renter.json(&["account", &host.id]), host.json(&["account", &renter.id]));
        (a["accounts"][0]["paid_acked"] == b["accounts"][0]["received"]
            && a["accounts"][0]["paid"] == a["accounts"][0]["paid_acked"])
            .then_some(())
    });
    let due = amount(&host.show(&lease)["receipt"]["due"]);
    let now = host.show(&lease)["drafted_at_ms"].as_u64().unwrap();
    let month = souk_ledger::months::Month::of(souk_protocol::Timestamp(now)).to_string();
    let get = |node: &Node, peer: &Node| node.json(&["invoice", "--month", &month, "--peer", &peer.id])[0].take();
    let (ours, theirs) = (get(&host, &renter), get(&renter, &host));
    assert_eq!((amount(&ours["sold_total"]), amount(&theirs["bought_total"])), (due, due), "{ours:#}\n{theirs:#}");
    let (line, mirrored) = (&ours["sold"][0], &theirs["bought"][0]);
    for key in ["lease", "before", "after", "amount", "receipt", "usage", "usage_n", "at_ms"] {
        assert_eq!(line[key], mirrored[key], "{key}");
    }
    assert_eq!(line["lease"], lease.as_str());
    assert_eq!((&ours["received"], &ours["closing"]), (&theirs["paid"], &theirs["closing"]));
    assert_eq!(amount(&ours["closing"]).0, amount(&ours["received_total"]).0.abs_diff(due.0));
    // A page to send, and values for a spreadsheet.
    let page = world.path().join("invoice.html");
    let file = page.display().to_string();
    let text = |arguments: &[&str]| {
        let mut command = std::process::Command::new(souk());
        let outcome = run(command.arg("--dir").arg(host.dir()).args(arguments), &[]);
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        outcome.out
    };
    text(&["invoice", "--month", &month, "--peer", &renter.id, "--html", &file, "--to", "Example Ltd"]);
    let page = fs::read_to_string(page).unwrap();
    for part in [&lease, &host.id, &renter.id, line["receipt"].as_str().unwrap(), "Example Ltd"] {
        assert!(page.contains(part), "{part} is not on the page");
    }
    assert!(!page.contains("src=") && !page.contains("href="), "it needs nothing from elsewhere");
    let csv = text(&["invoice", "--month", &month, "--csv"]);
    assert!(csv.lines().any(|l| l.contains(&lease) && l.ends_with(&due.to_string())), "{csv}");
    assert!(text(&["account"]).contains(&renter.id) && text(&["account", &renter.id]).contains("bank"));
}
