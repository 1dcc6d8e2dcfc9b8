//! What the relays that are the floors of the comparison have in common.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use onehop_net::listener::Listener;
use onehop_net::runtime;

/// How a relay ends; why it could not serve is said under its name.
pub fn ended(name: &str, listen: SocketAddr, result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {listen}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Accepts clients, each of which is served in a task of its own; what fails there is said under the relay's name.
///
/// # Errors
/// When the socket cannot be waited for.
pub async fn accept<F, E>(name: &'static str, socket: OwnedFd, each: impl Fn(OwnedFd) -> F) -> io::Result<()>
where
    F: Future<Output = Result<(), E>> + 'static,
    E: Display,
{
    let listener = Listener::new(socket)?;
    loop {
        listener.ready().await?;
        while let Ok((client, _)) = listener.accept() {
            let served = each(client);
            runtime::spawn(async move {
                if let Err(error) = served.await {
                    eprintln!("{name}: {error}");
                }
            });
        }
    }
}
