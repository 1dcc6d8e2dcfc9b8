//! What the origin does: sizes, times, and faults on purpose, each from a seed.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::time::Duration;

use onehop_net::precise::{SPIN, Sleeper};

use super::body;
use super::http2::Answers;
use crate::random::Random;
use crate::units;

/// How many bytes a body has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Always so many.
    Fixed(usize),
    /// Each number between the two alike.
    Uniform(usize, usize),
    /// Exponential around a mean, at most sixteen times it.
    Exponential(usize),
}

impl Size {
    /// `128`, `1KiB-64KiB`, or `exp:8KiB`.
    ///
    /// # Errors
    /// What is wrong, and how it is written.
    pub fn parse(text: &str) -> Result<Size, String> {
        if let Some(mean) = text.strip_prefix("exp:") {
            return Ok(Size::Exponential(units::size(mean)?));
        }
        match text.split_once('-') {
            Some((low, high)) => {
                let (low, high) = (units::size(low)?, units::size(high)?);
                if low <= high { Ok(Size::Uniform(low, high)) } else { Err(format!("\"{text}\" runs backwards")) }
            }
            None => units::size(text).map(Size::Fixed),
        }
    }

    /// The largest body.
    pub fn most(self) -> usize {
        match self {
            Size::Fixed(size) | Size::Uniform(_, size) => size,
            Size::Exponential(mean) => mean.saturating_mul(16).min(1 << 30),
        }
    }

    pub(super) fn pick(self, random: &mut Random) -> usize {
        match self {
            Size::Fixed(size) => size,
            Size::Uniform(low, high) => low + random.below((high - low) as u64 + 1) as usize,
            Size::Exponential(mean) => ((random.exponential() * mean as f64) as usize).min(self.most()),
        }
    }
}

/// How long an answer takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// At once.
    None,
    /// Always so long.
    Fixed(Duration),
    /// Exponential around a mean.
    Exponential(Duration),
    /// One after another, from a file, over and over.
    Trace(Vec<Duration>),
}

impl Service {
    /// `250us`, `exp:2ms`, or `trace:FILE` with a duration in each line.
    ///
    /// # Errors
    /// What is wrong, and how it is written.
    pub fn parse(text: &str) -> Result<Service, String> {
        if let Some(path) = text.strip_prefix("trace:") {
            let lines = std::fs::read_to_string(Path::new(path)).map_err(|error| format!("{path}: {error}"))?;
            let mut trace = Vec::new();
            for (number, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                trace.push(units::duration(line.trim()).map_err(|what| format!("{path}:{}: {what}", number + 1))?);
            }
            return if trace.is_empty() { Err(format!("{path} holds no duration")) } else { Ok(Service::Trace(trace)) };
        }
        if let Some(mean) = text.strip_prefix("exp:") {
            return units::duration(mean).map(Service::Exponential);
        }
        let fixed = units::duration(text)?;
        Ok(if fixed.is_zero() { Service::None } else { Service::Fixed(fixed) })
    }
}

/// What it answers.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Bytes of each body.
    pub size: Size,
    /// Time before each answer, from the request's last byte.
    pub service: Service,
    /// Sends the body in chunks of 16 KiB instead of with a length.
    pub chunked: bool,
    /// Share of requests answered with 503.
    pub errors: f64,
    /// Share of requests whose connection is reset instead.
    pub resets: f64,
    /// Sends the body in pieces of so many bytes, with a pause after each.
    pub slow: Option<(usize, Duration)>,
    /// Answers with the request's own body.
    pub echo_body: bool,
    /// Knows no HTTP: sends back what it gets.
    pub echo: bool,
    /// What only HTTP/2 has.
    pub http2: Http2Behaviour,
    /// Seed of all chance.
    pub seed: u64,
}

/// What the origin does with HTTP/2 and gRPC alone.
#[derive(Clone, Debug)]
pub struct Http2Behaviour {
    /// Share of requests whose stream is refused.
    pub refusals: f64,
    /// Requests on a connection after which it is ended with GOAWAY; zero: it never is.
    pub goaway_after: u64,
    /// Streams at once that a connection allows.
    pub max_streams: u32,
    /// What a client may send on a stream before it is given more credit, in bytes.
    pub window: u32,
    /// No more credit is ever given.
    pub stalled: bool,
    /// Messages of an answer to a gRPC method that answers with a stream.
    pub messages: u64,
}

impl Default for Http2Behaviour {
    fn default() -> Http2Behaviour {
        Http2Behaviour {
            refusals: 0.0,
            goaway_after: 0,
            max_streams: 1000,
            window: 1 << 20,
            stalled: false,
            messages: 10,
        }
    }
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        Behaviour {
            size: Size::Fixed(128),
            service: Service::None,
            chunked: false,
            errors: 0.0,
            resets: 0.0,
            slow: None,
            echo_body: false,
            echo: false,
            http2: Http2Behaviour::default(),
            seed: 1,
        }
    }
}

/// One core's origin at work.
pub(super) struct Served {
    pub(super) behaviour: Behaviour,
    /// The whole answer with and without its body, where each is the same.
    pub(super) fixed: Option<[Vec<u8>; 2]>,
    /// Body bytes to cut from.
    pub(super) filler: Vec<u8>,
    /// Heads and messages of HTTP/2.
    pub(super) http2: Answers,
    random: RefCell<Random>,
    at: Cell<usize>,
    pub(super) sleeper: Option<Sleeper>,
}

impl Served {
    pub(super) fn new(behaviour: Behaviour, number: usize) -> io::Result<Served> {
        let filler = vec![b'x'; behaviour.size.most()];
        let plain = behaviour.slow.is_none() && !behaviour.echo_body;
        let fixed = match behaviour.size {
            Size::Fixed(_) if plain => {
                Some([body::whole(&filler, behaviour.chunked, true), body::whole(&filler, behaviour.chunked, false)])
            }
            _ => None,
        };
        let sleeper = if behaviour.service == Service::None { None } else { Some(Sleeper::start(SPIN)?) };
        let random = RefCell::new(Random::new(behaviour.seed, number as u64 + 1000));
        let http2 = Answers::new(&filler);
        Ok(Served { behaviour, fixed, filler, http2, random, at: Cell::new(0), sleeper })
    }

    /// Whether something of this share happens now.
    pub(super) fn chance(&self, share: f64) -> bool {
        share > 0.0 && self.random.borrow_mut().unit() < share
    }

    pub(super) fn size(&self) -> usize {
        self.behaviour.size.pick(&mut self.random.borrow_mut())
    }

    pub(super) fn service(&self) -> Duration {
        match &self.behaviour.service {
            Service::None => Duration::ZERO,
            Service::Fixed(time) => *time,
            Service::Exponential(mean) => mean.mul_f64(self.random.borrow_mut().exponential()),
            Service::Trace(times) => {
                let at = self.at.get();
                self.at.set((at + 1) % times.len());
                times[at]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read() {
        assert_eq!(Size::parse("1KiB-2KiB"), Ok(Size::Uniform(1024, 2048)));
        assert_eq!(Size::parse("exp:8KiB"), Ok(Size::Exponential(8192)));
        assert!(Size::parse("2KiB-1KiB").is_err() && Size::parse("much").is_err());
        assert_eq!(Service::parse("exp:2ms"), Ok(Service::Exponential(Duration::from_millis(2))));
        assert_eq!(Service::parse("0us"), Ok(Service::None));
        assert!(Service::parse("trace:/nowhere").is_err());
    }

    #[test]
    fn random_sizes_keep_their_mean_and_bounds() {
        let mut random = Random::new(1, 1);
        let sizes: Vec<usize> = (0..20_000).map(|_| Size::Uniform(100, 300).pick(&mut random)).collect();
        assert!(sizes.iter().all(|size| (100..=300).contains(size)));
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((197..=203).contains(&mean), "{mean}");
        let mean = (0..20_000).map(|_| Size::Exponential(1000).pick(&mut random)).sum::<usize>() / 20_000;
        assert!((960..=1040).contains(&mean), "{mean}");
    }
}
