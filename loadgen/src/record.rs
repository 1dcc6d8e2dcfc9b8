//! What one thread saw, in slices of time that are handed over whole, so that nothing is copied on its core.

use hdrhistogram::Histogram;
use onehop_net::clock::Nanos;

use crate::failure::{Code, FAILURES, Failure};
use crate::lane::{Answer, Times};

/// Values are kept to three digits, from a nanosecond to an hour.
const HIGHEST_NS: u64 = 3_600_000_000_000;

/// An empty histogram of nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("the bounds are constants that fit")
}

/// Counts of one slice, or of a run.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests sent, whatever became of them.
    pub sent: u64,
    /// Answered as they should be.
    pub ok: u64,
    /// Failed, by way.
    pub failures: [u64; FAILURES],
    /// Answers by class of status, 1xx to 5xx, and others.
    pub statuses: [u64; 6],
    /// Payload bytes of good answers.
    pub bytes: u64,
    /// Connections made.
    pub connects: u64,
    /// TLS sessions that were resumed.
    pub resumed: u64,
    /// Requests that had to wait for a free connection.
    pub waited: u64,
    /// Messages of gRPC in good answers.
    pub messages: u64,
    /// Streams that were reset, by error code; the last: by one that is not known.
    pub reset_codes: [u64; 15],
    /// Calls by status; the last: by one that is not known, or by none.
    pub grpc_statuses: [u64; 18],
}

impl Counts {
    /// All failures.
    pub fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Counts) {
        self.sent += other.sent;
        self.ok += other.ok;
        for (sum, count) in self.failures.iter_mut().zip(other.failures) {
            *sum += count;
        }
        for (sum, count) in self.statuses.iter_mut().zip(other.statuses) {
            *sum += count;
        }
        self.bytes += other.bytes;
        self.connects += other.connects;
        self.resumed += other.resumed;
        self.waited += other.waited;
        self.messages += other.messages;
        for (sum, count) in self.reset_codes.iter_mut().zip(other.reset_codes) {
            *sum += count;
        }
        for (sum, count) in self.grpc_statuses.iter_mut().zip(other.grpc_statuses) {
            *sum += count;
        }
    }
}

/// Figures of one slice of time.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Its number, counted from the start of measuring.
    pub index: u64,
    /// From the intended moment to the last byte of the answer.
    pub latency: Histogram<u64>,
    /// From the sending to the last byte of the answer.
    pub service: Histogram<u64>,
    /// From the intended moment to the sending, where a connection was free: the generator's own lateness.
    pub lateness: Histogram<u64>,
    /// What connecting took.
    pub connect: Histogram<u64>,
    /// What TLS handshakes took, beyond connecting.
    pub handshake: Histogram<u64>,
    /// Counts.
    pub counts: Counts,
}

impl Default for Slice {
    fn default() -> Slice {
        Slice {
            index: 0,
            latency: histogram(),
            service: histogram(),
            lateness: histogram(),
            connect: histogram(),
            handshake: histogram(),
            counts: Counts::default(),
        }
    }
}

impl Slice {
    /// Adds another's figures.
    pub fn add(&mut self, other: &Slice) {
        for (sum, part) in [
            (&mut self.latency, &other.latency),
            (&mut self.service, &other.service),
            (&mut self.lateness, &other.lateness),
            (&mut self.connect, &other.connect),
            (&mut self.handshake, &other.handshake),
        ] {
            sum.add(part).expect("all histograms have the same bounds");
        }
        self.counts.add(&other.counts);
    }

    /// Empties it for the next use.
    pub fn clear(&mut self) {
        self.latency.reset();
        self.service.reset();
        self.lateness.reset();
        self.connect.reset();
        self.handshake.reset();
        self.counts = Counts::default();
    }
}

/// How a request came to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Its moment came while a connection was free.
    OnTime,
    /// No connection was free at its moment.
    Waited,
    /// In a closed loop: it had no moment.
    Unpaced,
}

/// One request as its lane saw it.
pub struct Seen {
    /// When it was meant to be sent.
    pub intended: Nanos,
    /// How it came to be sent.
    pub start: Start,
    /// When what happened.
    pub times: Times,
    /// What came of it.
    pub result: Result<Answer, (Failure, u16)>,
}

impl Seen {
    /// One request. In a closed loop no moment is meant but that of sending, unless the target kept it waiting for a place.
    pub fn new(intended: Nanos, start: Start, times: Times, result: Result<Answer, (Failure, u16)>) -> Seen {
        match (start, times.waited) {
            (Start::Unpaced, false) if times.sent > 0 => Seen { intended: times.sent, start, times, result },
            (Start::OnTime, true) => Seen { intended, start: Start::Waited, times, result },
            _ => Seen { intended, start, times, result },
        }
    }
}

/// A thread's recorder.
pub struct Recorder {
    slice: Slice,
    /// Times that are latency and service time alike, since they were sent when they were meant to be: booked once.
    alike: Histogram<u64>,
    from: Nanos,
    until: Nanos,
    /// What is answered after it belongs to the last slice.
    end: Nanos,
    length: u64,
    omit: bool,
    send: Box<dyn Fn(Slice)>,
    spare: Box<dyn Fn() -> Slice>,
}

impl Recorder {
    /// Counts requests that were meant to be sent from `from` on, until `end`. Full slices go to `send`; empty ones come from
    /// `spare`.
    pub fn new(
        from: Nanos,
        end: Nanos,
        length: u64,
        omit: bool,
        send: Box<dyn Fn(Slice)>,
        spare: Box<dyn Fn() -> Slice>,
    ) -> Recorder {
        Recorder { slice: spare(), alike: histogram(), from, until: from + length, end, length, omit, send, spare }
    }

    /// Closes slices that are over.
    pub fn advance(&mut self, now: Nanos) {
        while now >= self.until && self.until < self.end {
            let index = self.slice.index + 1;
            self.share();
            let full = std::mem::replace(&mut self.slice, (self.spare)());
            (self.send)(full);
            self.slice.index = index;
            self.until += self.length;
        }
    }

    fn share(&mut self) {
        if !self.alike.is_empty() {
            for sum in [&mut self.slice.latency, &mut self.slice.service] {
                sum.add(&self.alike).expect("all histograms have the same bounds");
            }
            self.alike.reset();
        }
    }

    /// Books one request.
    #[inline]
    pub fn book(&mut self, seen: &Seen, now: Nanos) {
        if seen.intended < self.from {
            return;
        }
        if now >= self.until {
            self.advance(now);
        }
        let Slice { latency, service, lateness, connect, handshake, counts, .. } = &mut self.slice;
        counts.sent += 1;
        if let Some(ns) = seen.times.connect_ns {
            counts.connects += 1;
            connect.saturating_record(ns);
        }
        if let Some(ns) = seen.times.handshake_ns {
            counts.resumed += u64::from(seen.times.resumed);
            handshake.saturating_record(ns);
        }
        match seen.start {
            Start::OnTime if seen.times.sent > 0 => {
                lateness.saturating_record(seen.times.sent.saturating_sub(seen.intended));
            }
            Start::Waited => counts.waited += 1,
            Start::OnTime | Start::Unpaced => {}
        }
        let status = match seen.result {
            Ok(answer) => {
                counts.ok += 1;
                counts.bytes += answer.bytes;
                counts.messages += answer.messages;
                let from = if self.omit { seen.times.sent } else { seen.intended };
                if from == seen.times.sent {
                    self.alike.saturating_record(seen.times.done.saturating_sub(from));
                } else {
                    latency.saturating_record(seen.times.done.saturating_sub(from));
                    service.saturating_record(seen.times.done.saturating_sub(seen.times.sent));
                }
                answer.status
            }
            Err((failure, status)) => {
                counts.failures[failure as usize] += 1;
                status
            }
        };
        match seen.times.code {
            Code::None => {}
            Code::Reset(code) => counts.reset_codes[(code as usize).min(14)] += 1,
            Code::Grpc(status) => counts.grpc_statuses[status.map_or(17, |status| (status as usize).min(17))] += 1,
        }
        if status > 0 {
            let class = usize::from(status / 100);
            counts.statuses[if (1..=5).contains(&class) { class - 1 } else { 5 }] += 1;
        }
    }

    /// Hands over what is left.
    pub fn finish(mut self) {
        self.share();
        (self.send)(self.slice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    fn seen(intended: Nanos, sent: Nanos, done: Nanos) -> Seen {
        let times = Times { sent, done, ..Times::default() };
        Seen { intended, start: Start::OnTime, times, result: Ok(Answer { status: 200, bytes: 5, messages: 0 }) }
    }

    fn record(omit: bool, book: impl FnOnce(&mut Recorder)) -> Vec<Slice> {
        let slices = Rc::new(RefCell::new(Vec::new()));
        let sink = slices.clone();
        let mut recorder = Recorder::new(
            1_000,
            3_001_000,
            1_000_000,
            omit,
            Box::new(move |slice| sink.borrow_mut().push(slice)),
            Box::new(Slice::default),
        );
        book(&mut recorder);
        recorder.finish();
        Rc::try_unwrap(slices).expect("one owner is left").into_inner()
    }

    #[test]
    fn latency_counts_from_the_intended_moment() {
        let slices = record(false, |recorder| {
            recorder.book(&seen(500, 600, 700), 700);
            recorder.book(&seen(1_000, 51_000, 61_000), 61_000);
        });
        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0].counts.ok, 1);
        assert!((59_900..60_100).contains(&slices[0].latency.max()));
        assert!((9_980..10_020).contains(&slices[0].service.max()));
        assert!((49_900..50_100).contains(&slices[0].lateness.max()));
        let omitted = record(true, |recorder| recorder.book(&seen(1_000, 51_000, 61_000), 61_000));
        assert!((9_980..10_020).contains(&omitted[0].latency.max()));
    }

    #[test]
    fn a_failure_has_no_latency_and_slices_follow_time() {
        let slices = record(false, |recorder| {
            let mut failed = seen(2_000, 2_000, 0);
            failed.result = Err((Failure::Status, 503));
            recorder.book(&failed, 5_000);
            // Meant to be sent before the end, answered after it.
            recorder.book(&seen(2_900_000, 2_900_000, 9_200_000), 9_200_000);
        });
        assert_eq!(slices.iter().map(|slice| slice.index).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(slices[0].latency.len(), 0);
        assert_eq!(slices[0].counts.statuses[4], 1);
        assert_eq!((slices[0].counts.failed(), slices[2].counts.ok), (1, 1));
    }
}
