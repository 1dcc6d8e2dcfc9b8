//! The floor of the comparison: a relay on the same runtime that parses nothing. Each client connection gets a
//! connection of its own to the origin, and bytes pass both ways.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use onehop_bench::relays;
use onehop_net::runtime::{self, Options};
use onehop_net::{Address, Stream, clock, relay};

/// Relays bytes on one core, without looking at them.
#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// Where to connect to.
    #[arg(long)]
    to: SocketAddr,
    /// Poll for so many microseconds after the last completion before sleeping.
    #[arg(long, default_value_t = 0)]
    busy_poll_us: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    relays::ended("raw-relay", arguments.listen, serve(&arguments))
}

fn serve(arguments: &Arguments) -> std::io::Result<()> {
    // Ignored where it fails: fewer connections fit then.
    let _ = onehop_net::raise_open_files();
    let socket = onehop_net::bind(&arguments.listen, true)?;
    let to = Address::Tcp(arguments.to);
    let options = Options { busy_poll: Duration::from_micros(arguments.busy_poll_us), ..Options::default() };
    runtime::run(
        &options,
        |_| {},
        |_| {
            relays::accept("raw-relay", socket, move |client| {
                let to = to.clone();
                async move { pass(client, &to).await }
            })
        },
    )?
}

async fn pass(client: std::os::fd::OwnedFd, to: &Address) -> std::io::Result<()> {
    let mut downstream = Stream::accepted(client)?;
    let mut upstream = Stream::connect(to, clock::after(clock::now(), Duration::from_secs(5))).await?;
    relay::relay(&mut downstream, &mut upstream, Duration::from_secs(3600)).await;
    Ok(())
}
