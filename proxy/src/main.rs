//! The `onehop` binary: command line, boot, and what is told to whoever runs it.

mod boot;
mod certs;
mod demo;
mod redirect;
mod route;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: onehop_net::Heap = onehop_net::Heap;

/// An io_uring, thread-per-core proxy that shows what its hop costs.
#[derive(Parser)]
#[command(name = "onehop", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the edge gateway.
    Gateway(Gateway),
    /// Runs the mesh sidecar before an app: its configuration has a `sidecar` table.
    Sidecar(Gateway),
    /// Redirects the connections of an app to its sidecar, by nftables, in this network namespace.
    Redirect {
        #[command(subcommand)]
        command: redirect::Redirect,
    },
    /// Checks a configuration: exit 0, or 1 with file:line:column and what was meant.
    Check {
        /// A TOML file, or a folder of them.
        #[arg(long)]
        config: PathBuf,
    },
    /// Says which route a request takes, and why each other one does not.
    Route(route::Question),
    /// Makes a trust domain for trying and testing: a root, an intermediate, and a short-lived SVID for each service.
    Certs(certs::Certs),
    /// Prints the JSON Schema of the configuration language, for editors.
    Schema,
    /// Runs an origin and a gateway on loopback and says what the hop costs each request.
    Demo {
        /// Stops by itself after so many requests (0: runs until a signal).
        #[arg(long, default_value_t = 0)]
        requests: u64,
    },
}

/// How the gateway is run.
#[derive(Args, Clone, Default)]
struct Gateway {
    /// A TOML file, or a folder of them.
    #[arg(long, conflicts_with_all = ["listen", "to"], required_unless_present = "listen")]
    config: Option<PathBuf>,
    /// Listens here, without a file: `--listen 127.0.0.1:8080 --to 127.0.0.1:9000`.
    #[arg(long, requires = "to")]
    listen: Option<SocketAddr>,
    /// Upstream endpoints, separated by commas.
    #[arg(long, value_delimiter = ',', requires = "listen")]
    to: Vec<String>,
    /// Worker threads; by default one per core that the process may use.
    #[arg(long)]
    workers: Option<usize>,
    /// The admin endpoint; by default what the configuration says, and none without it.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// How long a core polls after its last completion before it sleeps, such as 50us; 0s: not at all.
    #[arg(long, value_name = "DURATION")]
    busy_poll: Option<String>,
    /// Takes the listening sockets of the running instance over, which then drains.
    #[arg(long)]
    takeover: bool,
    /// Begins lower on the ladder of ring flags: deferred, cooperative, plain or epoll.
    #[arg(long, value_name = "RUNG", default_value = "deferred")]
    rung: String,
}

fn main() -> ExitCode {
    onehop_net::avoid_huge_pages();
    let result = match Cli::parse().command {
        Command::Gateway(gateway) => boot::gateway(&gateway),
        Command::Sidecar(sidecar) => boot::sidecar(&sidecar),
        Command::Redirect { command } => redirect::run(&command),
        Command::Check { config } => boot::check(&config),
        Command::Route(question) => route::run(&question),
        Command::Certs(wanted) => certs::run(&wanted),
        Command::Schema => {
            println!("{:#}", onehop_config::schema());
            Ok(())
        }
        Command::Demo { requests } => demo::run(requests),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
