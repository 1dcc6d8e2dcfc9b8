//! The `onehop-load` binary.

mod arguments;
mod commands;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Fewer connections fit where it fails.
    let _ = onehop_net::raise_open_files();
    let result = match arguments::Cli::parse().command {
        arguments::Command::Run(run) => commands::run(&run),
        arguments::Command::Origin(origin) => commands::origin(&origin),
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            eprintln!("onehop-load: {message}");
            ExitCode::FAILURE
        }
    }
}
