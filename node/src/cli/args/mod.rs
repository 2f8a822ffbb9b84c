//! The command line's grammar: commands, options, help with examples.

mod access;
mod cluster;
mod files;
mod hooks;
mod hosting;
mod images;
mod money;
mod orders;
mod owner;
mod renting;
mod template;
mod terms;
mod trust;
mod values;
mod volume;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use souk_protocol::Millis;

pub use access::*;
pub use cluster::*;
pub use files::*;
pub use hooks::*;
pub use hosting::*;
pub use images::*;
pub use money::*;
pub use orders::*;
pub use owner::*;
pub use renting::*;
pub use template::*;
pub use terms::*;
pub use trust::*;
use values::duration;
pub use volume::*;

/// A market for compute where the price is settled face to face: rent other people's machines, or rent out your own.
///
/// There is no server, no account and no fee. Run a node with `souk up`; the other commands ask it.
#[derive(Debug, Parser)]
#[command(
    name = "souk",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Examples:\n  souk up -d                                     run a node in the background\n  \
                  souk search 'gpu_name=RTX_4090' -o dph         what is on offer, cheapest first\n  \
                  souk rent 1 --image debian:12 -- sleep 1h      rent the first of them\n  \
                  souk up --host && souk host list --price 0.35  rent this machine out\n\n\
                  Exit codes: 0 done, 1 failed, 2 bad usage; exec passes on the command's own, 125 is souk's."
)]
pub struct Cli {
    /// Data directory: key, configuration, ledger [default: ~/.local/share/souk]
    #[arg(long, global = true, env = "SOUK_DIR", value_name = "DIR", hide_env_values = true)]
    pub dir: Option<PathBuf>,
    /// The node to ask: `ssh://[user@]host[:port][/path]`, unix:///path or http://127.0.0.1:port [env: SOUK_HOST] [default: this data directory's]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub at: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key, a machine id and a configuration; never overwrites
    #[command(after_help = "Examples:\n  souk init\n  souk init --network test --dir /srv/souk")]
    Init(InitArgs),
    /// Run the node
    #[command(after_help = "Examples:\n  souk up                    in the foreground, until Ctrl-C\n  \
                      souk up -d                 in the background; souk down stops it\n  \
                      souk up --host             also rent this machine out\n  \
                      souk up --bootstrap /ip4/203.0.113.7/tcp/7843/p2p/12D3KooW…")]
    Up(UpArgs),
    /// Stop the running node; instances on this machine keep their disks
    #[command(after_help = "Examples:\n  souk down\n  souk down --dir /srv/souk")]
    Down,
    /// How the node is
    #[command(after_help = "Examples:\n  souk status\n  souk status --json | jq .peers")]
    Status,
    /// Other nodes it is connected to
    #[command(after_help = "Examples:\n  souk peers\n  souk peers --json | jq -r '.[].address'")]
    Peers,
    /// Figures for monitoring, in Prometheus' text format
    #[command(
        after_help = "Examples:\n  souk metrics\n  souk metrics --json | jq '.[] | select(.name == \"souk_peers\")'\n  \
                      curl --unix-socket ~/.local/share/souk/api.sock http://souk/v1/metrics"
    )]
    Metrics,
    /// Look for machines to rent
    #[command(
        after_help = "Conditions are FIELD OP VALUE, with < <= = != >= > in notin; all must hold, or use `or`, `not` and ( ).\n\n\
                      Fields (docs/search.md says what each is, and its unit):\n  gpu_name num_gpus gpu_ram gpu_total_ram gpu_frac gpu_mem_bw gpu_max_power compute_cap\n  \
                      cuda_vers driver_version total_flops dlperf dlperf_usd flops_usd dph min_bid\n  \
                      reserved_discount storage_cost inet_up inet_down inet_up_cost inet_down_cost cpu_name\n  \
                      cpu_cores cpu_cores_effective cpu_ghz cpu_ram cpu_arch has_avx disk_space disk_bw pcie_bw\n  \
                      pci_gen duration geolocation reliability verified datacenter rentable rented static_ip\n  \
                      direct_port_count volume_space host_id machine_id id score trust reachability runtime\n  \
                      eviction_notice owed avoided blocked\n\n\
                      Examples:\n  souk search\n  souk search 'gpu_name=RTX_4090 num_gpus>=2' -o dph\n  \
                      souk search 'cpu_cores>=8 cpu_ram>=32' --storage 100\n  \
                      souk search 'gpu_ram>=80' --explain        why there is nothing"
    )]
    Search(SearchArgs),
    /// What GPUs cost: median, spread and occupancy of the offers seen
    #[command(
        after_help = "Prices are per hour of a GPU, or of a hardware thread on machines without. Each host counts once, with \
                      the median of its machines.\n\nExamples:\n  souk market\n  souk market RTX_4090\n  souk market cpu --json"
    )]
    Market(MarketArgs),
    /// Rent a machine and run an image on it
    #[command(after_help = "Examples:\n  souk rent 1 --image debian:12 -- sleep 1h\n  \
                      souk rent 3fa9c1 --image pytorch/pytorch --disk 50 --for 3h --max-spend 2 --label train -- python train.py\n  \
                      souk rent 1 --image debian:12 --price 0.20 --max-price 0.25 -d -y -- ./job\n  \
                      souk rent 1 --image my/image:dev --push                        from your own Docker\n  \
                      souk rent 1 --image ghcr.io/me/private --login me@ghcr.io      with your own login\n  \
                      souk rent 1 --image debian:12 --bid 0.12 -- ./job              runs while nobody bids more\n  \
                      souk rent 1 --image debian:12 --type reserved --for 7days --extend 24h -- ./job\n  \
                      souk rent --query 'gpu_ram>=24 dph<0.4' --wait --failover --image debian:12 -- ./job")]
    Rent(Box<RentArgs>),
    /// Rent a machine for one command: copy in, run, copy out, give it back
    #[command(
        after_help = "The command runs as with exec: without the image's entrypoint. Its exit code is passed on; 125 is souk's own failure. The \
                      machine is given back in every case: at the command's end, on Ctrl-C, when this program is killed, and after --for at the \
                      latest.\n\nExamples:\n  souk run debian:12 -- uname -a\n  \
                      souk run --query 'gpu_ram>=24 dph<0.4' --in train.py --out model.bin pytorch/pytorch -- python train.py\n  \
                      souk run --count 4 --in shards:/data --out /result:results debian:12 -- sh -c './job $SOUK_RANK'\n  \
                      gzip -dc big.gz | souk run -i --max-spend 0.05 debian:12 -- sort -u"
    )]
    Run(Box<RunArgs>),
    /// Templates: what to run and on what kind of machine, to keep and to share
    #[command(
        subcommand,
        after_help = "A template holds the image, command, user, variables, disk and search conditions of a rental; no price, no secret, no\n\
                      renter. Its id is the BLAKE3 of its file, so a shared one can be told to be the same.\n\n\
                      Examples:\n  souk template new lab --image jupyter/scipy-notebook --jupyter --query 'gpu_ram>=16'\n  \
                      souk template show lab\n  souk rent --template lab          the best match\n  souk rent 1 --template lab --disk 100"
    )]
    Template(TemplateCommand),
    /// Standing orders: rentals that wait for a match, or that are replaced when their host is lost
    #[command(
        subcommand,
        after_help = "Examples:\n  souk rent --query 'gpu_name=RTX_4090 dph<0.4' --wait --image debian:12 -d -- ./job\n  \
                      souk order list\n  souk order cancel 1"
    )]
    Order(OrderCommand),
    /// Disk that outlives instances: sized, billed, attached at rent
    #[command(
        subcommand,
        after_help = "Examples:\n  souk volume create data 1 --size 50\n  \
                      souk rent 1 --image debian:12 --volume data:/data -- ./job\n  souk volume list"
    )]
    Volume(VolumeCommand),
    /// List leases, as renter and as host
    #[command(
        after_help = "Examples:\n  souk ps\n  souk ps -a\n  souk ps -a --before 801        older ones\n  souk ps --watch\n  souk ps --json | jq -r '.[].lease'"
    )]
    Ps(PsArgs),
    /// All about one lease
    #[command(after_help = "Examples:\n  souk show 1\n  souk show train\n  souk show 3fa9 --json")]
    Show(LeaseArg),
    /// An instance's output
    #[command(
        after_help = "Examples:\n  souk logs 1\n  souk logs -f --tail 100 train\n  souk logs --since 10m --timestamps 1"
    )]
    Logs(LogsArgs),
    /// Run a further command in an instance
    #[command(
        after_help = "Examples:\n  souk exec 1 -- nvidia-smi\n  souk exec -it 1 -- bash\n  tar c . | souk exec -i 1 -- tar x -C /workspace"
    )]
    Exec(ExecArgs),
    /// Copy files to an instance, from one, or between two
    #[command(
        after_help = "As with rsync: `dir` is copied as DST/dir, and `dir/` puts its content into DST. Content that is there already is not sent \
                      again, and a copy that was cut off goes on where it stopped.\n\nExamples:\n  souk copy ./data 1:/workspace       makes /workspace/data\n  \
                      souk copy ./data/ 1:/data           makes /data\n  souk copy train:/out/model.bin .\n  \
                      souk copy -x '*.pyc' -x .git/ . 1:/src\n  souk copy 1:/data/ 2:/data"
    )]
    Copy(CopyArgs),
    /// Send the image that an instance waits for, or go on where that was cut off
    #[command(
        after_help = "souk rent --push does this by itself; it is for when that was interrupted. DOCKER_HOST names another engine than this \
                      machine's.\n\nExamples:\n  souk push 1\n  souk push train my/image:dev"
    )]
    Push(PushArgs),
    /// Make an image of an instance's disk: keep it on its host, write it to a file, or load it into your own Docker
    #[command(
        after_help = "Running or stopped. Without options it stays on the host, and its name is printed: rent there with --image NAME. Folders that \
                      the image declares as volumes are not in it.\n\nExamples:\n  souk snapshot 1\n  \
                      souk snapshot train --out train.tar\n  souk snapshot train my/trained:1 --load"
    )]
    Snapshot(SnapshotArgs),
    /// Rent a machine for a copy of an instance: its disk, and what it runs
    #[command(
        after_help = "Only layers that the other host lacks are sent, through this machine, where nothing is written.\n\nExamples:\n  \
                      souk clone 1 3fa9c1\n  souk clone train 2 --move -y --label train2"
    )]
    Clone(CloneArgs),
    /// Log in to an instance with OpenSSH, or run a command there; its image needs no sshd
    #[command(
        after_help = "Examples:\n  souk ssh 1\n  souk ssh train nvidia-smi\n  souk ssh -L 8080:localhost:80 -N 1\n  \
                      tar c . | souk ssh 1 tar x -C /workspace\n\nExit codes: the command's own, 255 is ssh's, 125 souk's."
    )]
    Ssh(SshArgs),
    /// Print a block for ~/.ssh/config, so that ssh, scp, rsync, VS Code and Ansible know an instance by name
    #[command(after_help = "Examples:\n  souk ssh-config train >> ~/.ssh/config && ssh train\n  \
                      souk ssh-config 1 > hosts && scp -F hosts data.tar souk-3fa9c1d2e4f5:")]
    SshConfig(SshConfigArgs),
    /// Let further SSH keys into a running instance, or keep them out again
    #[command(
        after_help = "What a key that is removed has open is cut at once. The rental's own key, which souk ssh uses, always gets in.\n\nExamples:\n  \
                      souk ssh-key add train ~/.ssh/id_ed25519.pub\n  souk ssh-key list train\n  souk ssh-key remove train SHA256:9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0"
    )]
    SshKey(SshKeyArgs),
    /// Pipe standard input and output to an instance's SSH server.
    #[command(hide = true, after_help = "Examples:\n  ssh -o ProxyCommand='souk ssh-proxy 1' instance")]
    SshProxy(SshProxyArgs),
    /// Speak with the node here over standard input and output, for a souk on another machine.
    #[command(
        hide = true,
        after_help = "Examples:\n  ssh me@box souk dial-stdio        what SOUK_HOST=ssh://me@box runs"
    )]
    DialStdio(DialStdioArgs),
    /// Reach ports of an instance on this machine, until Ctrl-C
    #[command(
        after_help = "Examples:\n  souk forward 1 8888\n  souk forward train 8080:80 0:5432\n  souk forward --udp 1 5353:53"
    )]
    Forward(ForwardArgs),
    /// Open the Jupyter of an instance in the browser, until Ctrl-C
    #[command(
        after_help = "The instance is one that was rented with --jupyter. Where there is no browser, the address is printed.\n\n\
                      Examples:\n  souk rent 1 --image jupyter/scipy-notebook --jupyter && souk open 1\n  souk open train --port 8888\n  \
                      souk open --print 1"
    )]
    Open(OpenArgs),
    /// What happened to a lease, and who caused it
    #[command(
        after_help = "The states and reasons are explained in docs/states.md.\n\nExamples:\n  souk events 1\n  souk events -f train\n  \
                      souk events --limit 20          of all leases, newest last\n  souk events -f --json | jq -r .state"
    )]
    Events(EventsArgs),
    /// End an instance's processes; its disk is kept, and billed
    #[command(after_help = "Examples:\n  souk stop 1\n  souk stop train 3fa9")]
    Stop(LeaseArgs),
    /// Run a stopped instance's command again
    #[command(after_help = "Examples:\n  souk start 1\n  souk start train")]
    Start(LeaseArgs),
    /// End leases; their disks are gone for good
    #[command(after_help = "Examples:\n  souk destroy 1\n  souk destroy -y 1 2 train")]
    Destroy(DestroyArgs),
    /// What it takes to win slots of a machine now, for each size it is sold in
    #[command(after_help = "Examples:\n  souk quote 1\n  souk quote 3fa9c1 --json | jq '.slices[].to_win'")]
    Quote(QuoteArgs),
    /// Change the bid of a lease that was rented by bid
    #[command(after_help = "Examples:\n  souk bid 1 0.25\n  souk bid train 0.10 --json | jq .place")]
    Bid(BidArgs),
    /// Have a lease end later, or say what to do with what its host asks for
    #[command(
        after_help = "The same price or a lower one is taken at once, a higher one with --max-price, -y or your yes; it holds from the \
                      present end on.\n\n\
                      Examples:\n  souk extend 1 12h\n  souk extend train 24h --max-price 0.40\n  \
                      souk extend 1 --auto 48h         the host may, at the same price or a lower one\n  \
                      souk extend 1 --auto off\n  souk extend 1 --accept           what the host asks for"
    )]
    Extend(ExtendArgs),
    /// Change what a lease may cost at most
    #[command(after_help = "Examples:\n  souk max-spend 1 20\n  souk max-spend train none")]
    MaxSpend(MaxSpendArgs),
    /// Name a lease
    #[command(after_help = "Examples:\n  souk label 1 train\n  souk label train ''       takes the name away")]
    Label(LabelArgs),
    /// What was used, and what both sides agree is owed
    #[command(after_help = "Examples:\n  souk receipts\n  souk receipts 1 --json")]
    Receipts(ReceiptsArgs),
    /// What is owed and paid, with everybody or with one peer; confirms what has arrived
    #[command(
        after_help = "Payments count once the payee has confirmed them: by a program, or by a person with --received.\n\n\
                      Examples:\n  souk account\n  souk account 7KyQ                      all about one peer\n  \
                      souk account 7KyQ --received 5.00      its payment has arrived\n  \
                      souk account 7KyQ --forgive            forget what it used and would not sign for\n  \
                      souk account 7KyQ --lost REFERENCE     a payment it never confirmed is owed, and paid, again\n  \
                      souk account --json | jq '.accounts[] | select(.to_confirm > 0)'"
    )]
    Account(AccountArgs),
    /// Pay a peer by a payment program, or say that you have paid outside of souk
    #[command(
        after_help = "A payment is named by its reference: the same one again is the same payment, and nothing is paid twice.\n\n\
                      Examples:\n  souk pay 7KyQ 5.00\n  souk pay 7KyQ 5.00 --method manual --reference 'transfer 2026-11-23'\n  \
                      souk pay 7KyQ 5.00 --method lightning -y --json | jq -r .state"
    )]
    Pay(PayArgs),
    /// A month with a peer: what was used, what was paid, what is owed
    #[command(
        after_help = "Every amount is traceable to a lease and the last receipt that both have signed in the month, and both parties' invoices \
                      mirror each other.\n\nExamples:\n  souk invoice --month 2026-11\n  \
                      souk invoice --month 2026-11 --peer 7KyQ --html invoice.html --to 'Example Ltd, 1 Example Street'\n  \
                      souk invoice --month 2026-11 --csv > november.csv"
    )]
    Invoice(InvoiceArgs),
    /// The record of everything signed
    #[command(subcommand, after_help = "Examples:\n  souk ledger check\n  souk ledger export ledger.souk")]
    Ledger(LedgerCommand),
    /// Check an exported ledger; needs no node and no network
    #[command(after_help = "Checks every signature, every chain and every sum again.\n\n\
                            Exit codes: 0 valid, 1 invalid, 6 incomplete, 2 the file can't be read.\n\n\
                            Examples:\n  souk verify ledger.souk\n  souk ledger export - | souk verify -")]
    Verify(VerifyArgs),
    /// Rent this machine out
    #[command(
        subcommand,
        after_help = "Examples:\n  souk host list --price 0.35\n  souk host accept anyone\n  souk host show"
    )]
    Host(HostCommand),
    /// Trust a node or an owner: its receipts count, and it may owe you so much
    #[command(
        after_help = "Trust is where reputation begins: what the trusted have dealt with counts next. Kept in the ledger, never told \
                      to others.\n\nExamples:\n  souk trust                          who is\n  souk trust 12D3KooW… --credit 20\n  \
                      souk trust owner7Kf… \n  souk trust 12D3KooW… --remove"
    )]
    Trust(TrustArgs),
    /// Have nothing to do with a node or an owner: no lease, no answer, not in searches
    #[command(after_help = "Leases that are open go on to their end, or both sides would lose what they are owed.\n\n\
                      Examples:\n  souk block                          who is\n  souk block 12D3KooW…\n  souk block 12D3KooW… --remove\n  \
                      souk search 'blocked=true'")]
    Block(BlockArgs),
    /// Vouch for a node, signed: it shows that to whoever asks
    #[command(
        after_help = "It counts for those who accept your word: trust.attesters in the configuration, or souk trust. Searches have fields for \
                      `verified` and `datacenter`.\n\nExamples:\n  souk attest                          by this node, and about it\n  \
                      souk attest 12D3KooW… datacenter\n  souk attest 12D3KooW… verified --until 'in 90days'\n  \
                      souk attest 12D3KooW… verified --withdraw"
    )]
    Attest(AttestArgs),
    /// Complain of the other party of a lease, signed: evidence that goes with the lease
    #[command(
        after_help = "Codes: over_metered not_acknowledged not_delivered performance bait unpaid payment_ignored abuse other. The complaint \
                      names the lease's last document; the other party gets it, and it is in the lease's export.\n\n\
                      Examples:\n  souk report 3 performance \"half of what the offer said\"\n  souk report train not_delivered"
    )]
    Report(ReportArgs),
    /// What to think of nodes, computed here from receipts that both parties signed
    #[command(
        after_help = "0.13 is a stranger. Nothing is believed that others say of a score: only receipts count, and whose they are.\n\n\
                      Examples:\n  souk reputation\n  souk reputation 12D3KooW… --explain      names the receipts\n  \
                      souk reputation --json | jq '.[] | [.peer, .host.trust]'"
    )]
    Reputation(ReputationArgs),
    /// Tell URLs and programs what happens: outbid, offline, rented …
    #[command(
        subcommand,
        after_help = "Examples:\n  souk hook add outbid,offline https://hooks.example/souk\n  souk hook add rented -- /usr/local/bin/on-rented\n  souk hook test hook1\n  souk hook log"
    )]
    Hook(HookCommand),
    /// One owner, many machines: whose this node is
    #[command(
        subcommand,
        after_help = "Examples:\n  souk owner init                       once, on your own computer\n  \
                      souk owner sign 12D3KooW…             there, for each of your hosts\n  \
                      souk owner join soukmember…           on that host\n  \
                      souk host machines                    all of them"
    )]
    Owner(OwnerCommand),
    /// A private cluster: machines that trust each other, and nobody else in
    #[command(
        subcommand,
        after_help = "One line makes a member: souk cluster join TICKET. Prices are zero unless a host says otherwise, quotas take their place, and\n\
                      nothing needs the internet.\n\nExamples:\n  souk cluster new lab && souk up -d --host     on the keeper's machine\n  \
                      souk cluster invite                           there; prints a ticket\n  souk cluster join soukcluster…                on another machine\n  \
                      souk cluster members"
    )]
    Cluster(ClusterCommand),
    /// The whole story on loopback in about a minute, with real nodes and a real workload
    #[command(after_help = "Examples:\n  souk demo\n  souk demo --keep")]
    Demo(DemoArgs),
    /// The configuration in force
    #[command(subcommand, after_help = "Examples:\n  souk config show\n  $EDITOR \"$(souk config path)\"")]
    Config(ConfigCommand),
    /// Print a shell's completions
    #[command(
        after_help = "Examples:\n  souk completions bash > /etc/bash_completion.d/souk\n  souk completions zsh > ~/.zfunc/_souk"
    )]
    Completions(CompletionsArgs),
    /// Print the version
    #[command(after_help = "Examples:\n  souk version\n  souk version --json")]
    Version,
}

/// `souk init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The network to join
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
}

/// `souk up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Rent this machine out too
    #[arg(long)]
    pub host: bool,
    /// Run in the background; the log goes to souk.log in the data directory
    #[arg(short, long)]
    pub detach: bool,
    /// Listen here instead of the configured addresses (repeatable)
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<String>,
    /// Begin with these peers, beside the configured ones (repeatable)
    #[arg(long, value_name = "MULTIADDR")]
    pub bootstrap: Vec<String>,
    /// The network to join
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
    /// As a host: time between two receipts, where the renter asks for no other
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub tick: Option<Millis>,
    /// Serve the API on a loopback address too
    #[arg(long, value_name = "ADDR:PORT")]
    pub api_tcp: Option<SocketAddr>,
    /// This is the background process.
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// `souk demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave its nodes and data for a look around
    #[arg(long)]
    pub keep: bool,
}

/// `souk config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting in force
    #[command(after_help = "Examples:\n  souk config show\n  SOUK_LOG_LEVEL=debug souk config show --json")]
    Show,
    /// Print where the file is
    #[command(after_help = "Examples:\n  souk config path")]
    Path,
}

/// `souk completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_help_of_search_names_every_field() {
        let mut cli = Cli::command();
        let help = cli.find_subcommand_mut("search").unwrap().render_help().to_string();
        let words: Vec<&str> = help.split_whitespace().collect();
        for info in souk_protocol::query::fields() {
            assert!(words.contains(&info.name), "souk search --help does not name {}", info.name);
        }
    }
}
