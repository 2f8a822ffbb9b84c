//! The command line: a client of the local API.
//!
//! Owns the grammar ([`args`]), printing, prompts and exit codes, and starting a node (`souk up`). Holds no rule of the market.

mod account;
pub mod args;
mod cluster;
mod config;
mod copy;
mod copy_display;
mod dial;
mod earnings;
mod error;
mod events;
mod exec;
mod forward;
mod hooks;
mod host;
mod host_show;
mod invoice;
mod invoice_page;
mod jupyter;
mod leases;
mod ledger;
mod listing;
mod login;
mod machines;
mod market;
mod node;
mod onstart;
mod open;
mod orders;
mod output;
mod owner;
mod plot;
mod progress;
mod push;
mod rent;
mod run;
mod schedule;
mod search;
mod snapshot;
mod ssh;
mod ssh_keys;
mod template;
mod terms;
mod trust;
mod verify;
mod volume;
mod volume_clone;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser};

use self::{
    args::{Cli, Command, LedgerCommand},
    error::Failure,
};
use crate::{api::client::Client, config::Config, remote::NodeAddress};

/// What a command may need to know.
struct Context {
    dir: PathBuf,
    /// Where the node is, if not here.
    at: Option<NodeAddress>,
    json: bool,
}

impl Context {
    /// The configuration of this machine's node.
    fn config(&self) -> Result<Config, Failure> {
        self.here()?;
        Ok(crate::config::load(&self.dir, std::env::vars_os())?)
    }

    /// Refuses what is about this machine's node where another is named.
    fn here(&self) -> Result<(), Failure> {
        match &self.at {
            None => Ok(()),
            Some(at) => {
                let elsewhere = match at {
                    NodeAddress::Ssh(address) => address.by_hand("souk …"),
                    NodeAddress::Unix(_) | NodeAddress::Loopback(_) => "souk --dir DIR …".to_owned(),
                };
                Err(Failure::usage(format!("this command is about the node of this machine, and {at} is named"))
                    .hint(format!("{elsewhere}, or here without --at and SOUK_HOST")))
            }
        }
    }

    fn client(&self) -> Result<Client, Failure> {
        dial::client(self)
    }
}

/// The grammar, for completions and tests.
#[must_use]
pub fn grammar() -> clap::Command {
    Cli::command()
}

/// Runs the program: reads its arguments, does what they say, and returns its exit code.
pub fn main() -> ExitCode {
    // Without it the first TLS handshake of QUIC would not know which implementation to use. Fails only if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    let json = cli.json;
    let code = match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            if let Some(text) = failure.text(json) {
                output::note(text);
            }
            failure.exit
        }
    };
    ExitCode::from(code)
}

fn run(cli: Cli) -> Result<u8, Failure> {
    let context = Context { dir: data_dir(cli.dir)?, at: dial::address(cli.at)?, json: cli.json };
    let workers = matches!(cli.command, Command::Up(_) | Command::Demo(_));
    let mut builder = if workers {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build()?;
    let result = runtime.block_on(dispatch(&context, cli.command));
    // A thread may still wait for input that never comes.
    runtime.shutdown_background();
    result
}

async fn dispatch(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Init(args) => node::init(context, &args),
        Command::Up(args) => node::up(context, args).await,
        Command::Down => node::down(context).await,
        Command::Status => node::status(context).await,
        Command::Peers => node::peers(context).await,
        Command::Metrics => node::metrics(context).await,
        Command::Search(args) => search::search(context, args).await,
        Command::Template(command) => template::template(context, command).await,
        Command::Market(args) => market::market(context, &args).await,
        Command::Rent(args) => rent::rent(context, *args).await,
        Command::Order(command) => orders::order(context, command).await,
        Command::Ps(args) => leases::ps(context, &args).await,
        Command::Show(args) => leases::show(context, &args.id).await,
        Command::Copy(args) => copy::copy(context, args).await,
        Command::Push(args) => push::push(context, args).await,
        Command::Snapshot(args) => snapshot::snapshot(context, args).await,
        Command::Clone(args) => snapshot::clone(context, args).await,
        Command::Run(args) => run::run(context, *args).await,
        Command::Events(args) => events::events(context, &args).await,
        Command::Stop(args) => leases::control(context, &args.ids, "stop").await,
        Command::Start(args) => leases::control(context, &args.ids, "start").await,
        Command::Destroy(args) => leases::destroy(context, &args).await,
        Command::Quote(args) => terms::quote(context, args).await,
        Command::Bid(args) => terms::bid(context, args).await,
        Command::Extend(args) => terms::extend(context, args).await,
        Command::MaxSpend(args) => terms::max_spend(context, args).await,
        Command::Label(args) => leases::label(context, args).await,
        Command::Logs(args) => exec::logs(context, args).await,
        Command::Exec(args) => exec::exec(context, args).await,
        Command::Ssh(args) => ssh::ssh(context, args).await,
        Command::SshConfig(args) => ssh::ssh_config(context, args).await,
        Command::SshKey(args) => ssh_keys::ssh_key(context, args).await,
        Command::DialStdio(args) => dial::dial_stdio(context, args).await,
        Command::SshProxy(args) => ssh::ssh_proxy(context, &args.id).await,
        Command::Forward(args) => forward::forward(context, args).await,
        Command::Open(args) => open::open(context, &args).await,
        Command::Account(args) => account::account(context, &args).await,
        Command::Pay(args) => account::pay(context, args).await,
        Command::Invoice(args) => invoice::invoice(context, &args).await,
        Command::Receipts(args) => ledger::receipts(context, &args).await,
        Command::Ledger(LedgerCommand::Check) => ledger::check(context).await,
        Command::Ledger(LedgerCommand::Compact) => ledger::compact(context).await,
        Command::Ledger(LedgerCommand::Export(args)) => ledger::export(context, args).await,
        Command::Verify(args) => verify::verify(context, &args.file),
        Command::Host(command) => host::host(context, command).await,
        Command::Owner(command) => owner::owner(context, command).await,
        Command::Cluster(command) => cluster::cluster(context, command).await,
        Command::Trust(args) => trust::trust(context, args).await,
        Command::Block(args) => trust::block(context, args).await,
        Command::Attest(args) => trust::attest(context, args).await,
        Command::Report(args) => trust::report(context, args).await,
        Command::Reputation(args) => trust::reputation(context, args).await,
        Command::Hook(command) => hooks::hook(context, command).await,
        Command::Demo(args) => node::demo(context, &args).await,
        Command::Config(command) => config::config(context, &command),
        Command::Completions(args) => config::completions(args.shell),
        Command::Volume(command) => volume::volume(context, command).await,
        Command::Version => config::version(context),
    }
}

/// `--dir` or `SOUK_DIR`, else `souk` in the user's data directory.
fn data_dir(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let dir = match given {
        Some(dir) => dir,
        None => named("XDG_DATA_HOME")
            .or_else(|| named("HOME").map(|home| home.join(".local/share")))
            .map(|data| data.join("souk"))
            .ok_or_else(|| Failure::new("there is no home directory to keep data in").hint("souk --dir DIR …"))?,
    };
    Ok(std::path::absolute(dir)?)
}
