//! Options of `souk hook`.

use clap::{Args, Subcommand};

use crate::hooks::EventKind;

/// `souk hook`.
#[derive(Debug, Subcommand)]
pub enum HookCommand {
    /// Tell a URL or a program of events
    #[command(after_help = "EVENT is `all`, or names with commas between them:\n  \
                      what you rent:  outbid eviction_notice notice_withdrawn resumed offline back_online\n                  \
                      expiring_soon extension_asked contract_extended maintenance low_credit payment_due\n                  \
                      payment_failed payment_claimed \
                      lease_started lease_stopped lease_ended disk_full\n  \
                      your machines:  rented gpu_idle disk_nearly_full engine_down engine_up machine_offline,\n                  \
                      and of what is rented there: lease_started, lease_stopped … lease_ended\n\n\
                      A URL gets a POST signed as Standard Webhooks has it. A program gets the event's JSON on its\n\
                      standard input and its words in SOUK_EVENT, SOUK_EVENT_TEXT …; no shell looks at its arguments.\n\n\
                      Examples:\n  souk hook add outbid,offline https://hooks.example/souk\n  \
                      souk hook add all https://ntfy.example/me --name phone\n  \
                      souk hook add lease_ended 'notify-send \"a lease is over\"'\n  \
                      souk hook add rented -- /usr/local/bin/on-rented --verbose")]
    Add(HookAddArgs),
    /// The hooks, what waits for them, and the key that signs
    #[command(after_help = "Examples:\n  souk hook list\n  souk hook list --json | jq -r .public_key")]
    List,
    /// Remove hooks, and what waits for them
    #[command(after_help = "Examples:\n  souk hook remove phone\n  souk hook remove hook1 hook2")]
    Remove(HookNames),
    /// Send a test event now, and show the answer
    #[command(after_help = "Examples:\n  souk hook test phone")]
    Test(HookName),
    /// What became of deliveries, newest last
    #[command(after_help = "Examples:\n  souk hook log\n  souk hook log phone -n 100\n  \
                      souk hook log --json | jq '.[] | select(.delivered | not)'")]
    Log(HookLogArgs),
}

/// `souk hook add`.
#[derive(Debug, Args)]
pub struct HookAddArgs {
    /// What to hear of: names with commas between them, or `all`
    #[arg(value_name = "EVENT", value_parser = events)]
    pub events: Events,
    /// A URL, or a command line in one word, split as a shell would
    #[arg(value_name = "URL|CMD", required_unless_present = "program", conflicts_with = "program")]
    pub target: Option<String>,
    /// A name for it [default: hook1, hook2 …]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// A program and its arguments, as they are
    #[arg(last = true, value_name = "PROGRAM")]
    pub program: Vec<String>,
}

/// Events; none for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events(pub Vec<EventKind>);

fn events(text: &str) -> Result<Events, String> {
    let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err("name at least one event, or all".to_owned());
    }
    if names.contains(&"all") {
        return Ok(Events(Vec::new()));
    }
    let parsed = names.into_iter().map(str::parse).collect::<Result<_, _>>();
    parsed.map(Events).map_err(|e: crate::hooks::event::UnknownEvent| e.to_string())
}

/// Hooks by name.
#[derive(Debug, Args)]
pub struct HookNames {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// A hook by name.
#[derive(Debug, Args)]
pub struct HookName {
    /// Its name
    pub name: String,
}

/// `souk hook log`.
#[derive(Debug, Args)]
pub struct HookLogArgs {
    /// Of this hook only
    pub name: Option<String>,
    /// So many of the newest
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = limit)]
    pub limit: usize,
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1000).contains(n)).ok_or_else(|| "a number from 1 to 1000".to_owned())
}
