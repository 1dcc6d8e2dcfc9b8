//! The `onehop-load` binary.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use onehop_load::origin::Origin;

/// Onehop's origin to aim at. (Its load generator will join it.)
#[derive(Parser)]
#[command(name = "onehop-load", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers every request with the same bytes.
    Origin {
        /// Where to listen; port 0 takes a free one, which is printed.
        #[arg(long, default_value = "127.0.0.1:9000")]
        listen: SocketAddr,
        /// Bytes of each body.
        #[arg(long, default_value_t = 128)]
        size: usize,
        /// Milliseconds before each answer.
        #[arg(long, default_value_t = 0)]
        delay_ms: u64,
        /// Sends the body in chunks.
        #[arg(long)]
        chunked: bool,
        /// Threads, each with a ring of its own.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Poll for so many microseconds after the last completion before sleeping.
        #[arg(long, default_value_t = 0)]
        busy_poll_us: u64,
    },
}

fn main() -> ExitCode {
    let Command::Origin { listen, size, delay_ms, chunked, threads, busy_poll_us } = Cli::parse().command;
    // Fewer connections fit where it fails.
    let _ = onehop_net::raise_open_files();
    let (delay, busy_poll) = (Duration::from_millis(delay_ms), Duration::from_micros(busy_poll_us));
    let bound = match (Origin { listen, size, delay, chunked, busy_poll }).bind(threads) {
        Ok(bound) => bound,
        Err(error) => {
            eprintln!("onehop-load: the origin cannot listen on {listen}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("origin http://{}", bound.address);
    match bound.serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("onehop-load: the origin ended: {error}");
            ExitCode::FAILURE
        }
    }
}
