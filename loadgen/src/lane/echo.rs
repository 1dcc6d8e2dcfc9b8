//! An echo over plain TCP, for paths that do not know HTTP: what is sent comes back, byte for byte.

use onehop_net::{Size, Stream, clock};

use super::{Answer, Times, arm, ended, open, unwritten};
use crate::failure::Failure;
use crate::plan::Plan;
use crate::request::Prepared;

/// One connection.
#[derive(Default)]
pub struct Connection {
    stream: Option<Stream>,
}

impl Connection {
    /// Connects, unless it is connected.
    pub async fn connect(&mut self, plan: &Plan, times: &mut Times) -> Result<(), Failure> {
        if self.stream.is_none() {
            self.stream = Some(open(plan, times).await?);
        }
        Ok(())
    }

    /// The stream, between two requests.
    pub fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    /// Sends bytes and takes them back.
    pub async fn exchange(
        &mut self,
        plan: &Plan,
        request: &Prepared,
        times: &mut Times,
        begun: Option<usize>,
    ) -> Result<Answer, Failure> {
        if times.sent == 0 {
            times.sent = clock::now();
        }
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => open(plan, times).await?,
        };
        if begun.is_none() {
            arm(&stream, plan, times.sent);
        }
        let body = &request.body[..];
        let size = if body.len() > Size::Medium.bytes() { Size::Large } else { Size::Medium };
        let (mut written, mut echoed) = (begun.unwrap_or(0), 0);
        // Both ways at once: a large payload fills both sockets before the last byte of it is taken.
        while echoed < body.len() {
            if written < body.len() {
                match stream.try_write(&body[written..]) {
                    Ok(count) => written += count,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && echoed == written => {
                        stream.writable().await.map_err(|_| unwritten(&stream))?;
                        continue;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return Err(unwritten(&stream)),
                }
                if written < body.len() && echoed == written {
                    continue;
                }
            }
            match stream.fill(size).await {
                Ok(1..) => {}
                _ if echoed == 0 => return Err(ended(&stream, Failure::Closed)),
                _ => return Err(ended(&stream, Failure::ShortBody)),
            }
            let here = stream.buffered();
            if body.get(echoed..echoed + here.len()) != Some(here) {
                return Err(Failure::Content);
            }
            echoed += here.len();
            let count = here.len();
            stream.consume(count);
        }
        times.done = clock::now();
        stream.deadline().disarm();
        if !plan.new_connections {
            self.stream = Some(stream);
        }
        Ok(Answer { status: 0, bytes: echoed as u64, messages: 0 })
    }
}
