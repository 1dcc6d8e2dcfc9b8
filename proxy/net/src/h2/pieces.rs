//! What must hold of the walker for any bytes in any pieces, against a plain reading of the whole: for tests and for
//! fuzzing (`proxy/net/fuzz`).

use super::walker::{Breach, Flood, Walker};

/// A frame's head, and where its bytes stand.
struct Frame {
    kind: u8,
    flags: u8,
    length: usize,
    at: usize,
}

/// The frames of a whole stream of bytes; the last one's payload may be cut.
fn frames(bytes: &[u8], from_client: bool) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut at = if from_client { 24 } else { 0 };
    while let Some([a, b, c, kind, flags, ..]) = bytes.get(at..at + 9) {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        frames.push(Frame { kind: *kind, flags: *flags, length, at });
        at += 9 + length;
    }
    frames
}

/// DATA without content, padding or an end.
fn says_nothing(frame: &Frame) -> bool {
    frame.kind == 0 && frame.length == 0 && frame.flags & 0b1001 == 0
}

/// What goes on: all of it but the frames that say nothing, and the last head as long as it is not whole.
fn expected(bytes: &[u8], from_client: bool) -> Vec<u8> {
    let frames = frames(bytes, from_client);
    let mut end = if from_client { 24 } else { 0 };
    let mut out = bytes[..end.min(bytes.len())].to_vec();
    for frame in frames {
        end = frame.at + 9 + frame.length;
        if !says_nothing(&frame) {
            out.extend(&bytes[frame.at..end.min(bytes.len())]);
        }
    }
    out
}

/// The budgets, written down once more: frames at once, and for how many nanoseconds one counts.
const BUDGETS: [(Flood, u32, u64); 8] = [
    (Flood::Resets, 500, 30_000_000),
    (Flood::Settings, 100, 1_000_000_000),
    (Flood::Pings, 1000, 10_000_000),
    (Flood::Priorities, 1000, 10_000_000),
    (Flood::WindowUpdates, 50_000, 50_000),
    (Flood::EmptyFrames, 100, 100_000_000),
    (Flood::Continuations, 1000, 10_000_000),
    (Flood::Unknown, 1000, 10_000_000),
];

/// The verdicts by the book, frame by frame.
#[derive(Default)]
struct Judge {
    from_client: bool,
    levels: [u32; 8],
    /// The last time that each budget was asked.
    asked: [u64; 8],
    frames: usize,
    openings: u32,
}

impl Judge {
    /// A frame's head, and what came of its payload.
    fn read(&mut self, frame: &Frame, bytes: &[u8], now: u64) -> Option<Breach> {
        let from = (frame.at + 9).min(bytes.len());
        let payload = &bytes[from..(from + frame.length).min(bytes.len())];
        let settles = frame.kind == 4 && frame.flags & 1 == 0;
        let wrong = |setting: &[u8]| match setting {
            [0, 2, value @ ..] if !self.from_client && value != [0; 4] => Some(Breach::Pushes),
            [0, 4, high, ..] if *high >= 128 => Some(Breach::Window),
            _ => None,
        };
        let wrong = if settles { payload.chunks_exact(6).find_map(wrong) } else { None };
        self.look(frame, now).or(wrong)
    }

    fn look(&mut self, frame: &Frame, now: u64) -> Option<Breach> {
        let Frame { kind, flags, length, .. } = *frame;
        self.frames += 1;
        if self.frames == 1 && (kind != 4 || flags & 1 == 1) {
            return Some(Breach::Unsettled);
        }
        let least = usize::from(flags & 8 == 8) + if kind == 1 && flags & 0x20 == 0x20 { 5 } else { 0 };
        let wrong = match kind {
            0 | 1 => length < least,
            2 => length != 5,
            3 | 8 => length != 4,
            4 if flags & 1 == 1 => length > 0,
            4 => !length.is_multiple_of(6),
            6 => length != 8,
            7 => length < 8,
            _ => false,
        };
        if wrong {
            return Some(Breach::Size);
        }
        // What makes up for what.
        if matches!(kind, 0 | 1 | 8) {
            self.forgive(Flood::Pings, 1);
        }
        if kind == 1 {
            self.openings += 1;
            let resets = if self.from_client { self.openings % 2 } else { 1 };
            let forgiven =
                [(Flood::Resets, resets), (Flood::Priorities, 1), (Flood::Unknown, 1), (Flood::Continuations, 4)];
            forgiven.into_iter().for_each(|(flood, count)| self.forgive(flood, count));
        }
        let flood = match (kind, flags & 1, length) {
            (0 | 1, 0, 0) | (9, _, 0) => Flood::EmptyFrames,
            (0 | 1 | 5 | 7, ..) | (4 | 6, 1, _) => return None,
            (2, ..) => Flood::Priorities,
            (3, ..) => Flood::Resets,
            (4, ..) => Flood::Settings,
            (6, ..) => Flood::Pings,
            (8, ..) => Flood::WindowUpdates,
            (9, ..) => Flood::Continuations,
            _ => Flood::Unknown,
        };
        let at = place(flood);
        let (burst, each) = match (flood, self.from_client) {
            (Flood::Resets, false) => (5000, 1_000_000),
            _ => (BUDGETS[at].1, BUDGETS[at].2),
        };
        // One is forgiven with each tick of its clock.
        let ticks = now / each - self.asked[at] / each;
        self.asked[at] = now;
        self.levels[at] = self.levels[at].saturating_sub(u32::try_from(ticks).unwrap_or(u32::MAX)) + 1;
        (self.levels[at] > burst).then_some(Breach::Flood(flood))
    }

    fn forgive(&mut self, flood: Flood, count: u32) {
        let level = &mut self.levels[place(flood)];
        *level = level.saturating_sub(count);
    }
}

fn place(flood: Flood) -> usize {
    BUDGETS.iter().position(|(other, ..)| *other == flood).unwrap_or_default()
}

/// Reads the bytes in pieces as a connection does, up to the first breach: what goes on, and the breach.
fn read(bytes: &[u8], from_client: bool, mut piece: impl FnMut() -> (usize, usize)) -> (Vec<u8>, Option<Breach>) {
    let (mut walker, mut out) = (Walker::new(from_client), Vec::new());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (length, room) = piece();
        let (mut part, after) = rest.split_at(length.clamp(1, rest.len()));
        rest = after;
        while !part.is_empty() {
            let taken = walker.take(part, room.max(1), 5);
            if taken.breach.is_some() {
                return (out, taken.breach);
            }
            assert!(taken.seen > 0 && taken.passed <= taken.seen && taken.passed <= room.max(1));
            out.extend(&part[..taken.passed]);
            if taken.owes_head {
                out.extend(walker.head);
            }
            part = &part[taken.seen..];
        }
    }
    (out, None)
}

/// The verdict and what goes on are those of the whole, however the bytes come: at once, evenly cut, in pieces whose
/// lengths the bytes say.
///
/// # Panics
/// When they are not.
pub fn walk(bytes: &[u8]) {
    let [shape, bytes @ ..] = bytes else { return };
    let (from_client, cut) = (shape & 1 == 1, usize::from(shape >> 1));
    let mut judge = Judge { from_client, ..Judge::default() };
    let verdict = frames(bytes, from_client).iter().find_map(|frame| judge.read(frame, bytes, 5));
    let wanted = expected(bytes, from_client);
    let check = |(passed, breach): (Vec<u8>, Option<Breach>)| {
        assert_eq!(breach, verdict);
        assert!(if breach.is_none() { passed == wanted } else { wanted.starts_with(&passed) }, "{passed:?} {wanted:?}");
    };
    check(read(bytes, from_client, || (usize::MAX, usize::MAX)));
    check(read(bytes, from_client, || (1, 1)));
    check(read(bytes, from_client, || (cut, usize::MAX)));
    let mut lengths = bytes.iter().cycle();
    check(read(bytes, from_client, || {
        let byte = lengths.next().copied().unwrap_or(1);
        (usize::from(byte % 23), usize::from(byte >> 4) * 3)
    }));
}

/// The budgets are kept to the frame while time goes on: each three bytes are a frame and how many of it come, and how
/// much later.
///
/// # Panics
/// When they are not.
pub fn count(bytes: &[u8]) {
    let (mut walker, mut judge) = (Walker::new(false), Judge::default());
    let mut now = 7;
    for script in bytes.chunks_exact(3) {
        let (kind, flags, length) = [
            (0, 0, 0),
            (0, 1, 0),
            (0, 0, 2),
            (1, 4, 3),
            (2, 0, 5),
            (3, 0, 4),
            (4, 0, 6),
            (4, 1, 0),
            (6, 0, 8),
            (6, 1, 8),
            (7, 0, 8),
            (8, 0, 4),
            (9, 0, 0),
            (9, 4, 1),
            (99, 0, 3),
            (5, 4, 4),
        ][usize::from(script[0] % 16)];
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.resize(9 + usize::from(length), 7);
        // From single nanoseconds to seconds, with odd remainders.
        now += u64::from(script[2] % 32) * 7u64.pow(u32::from(script[2] / 32) + 3);
        for _ in 0..u16::from(script[1]) * 4 {
            let frame = Frame { kind, flags, length: usize::from(length), at: 0 };
            assert_eq!(walker.walk(&bytes, now), judge.look(&frame, now), "{kind} at {now}");
            now += u64::from(script[0] / 16) * 1009;
        }
    }
}

#[cfg(test)]
#[path = "../../../wire/tests/checks/runner.rs"]
mod runner;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::runner::check;

    #[test]
    fn pieces_change_nothing() {
        let head = (prop::sample::select(vec![0u8, 0, 0, 1, 2, 3, 4, 6, 8, 9, 99]), any::<u8>());
        let length = prop_oneof![5 => Just(0usize), 5 => 0..9usize, 1 => 0..400usize];
        let frame = (head, length).prop_map(|((kind, flags), length)| {
            let length = match kind {
                2 => 5,
                3 | 8 => 4,
                4 => length / 6 * 6,
                6 => 8,
                _ => length,
            };
            let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, flags & 0b1101, 0, 0, 0, 1];
            frame.resize(9 + length, 0);
            if kind == 4 && length > 6 {
                // ENABLE_PUSH and INITIAL_WINDOW_SIZE among others.
                frame[length + 4] = flags >> 5;
                frame[length + 5] = flags << 6;
                frame[length + 8] = flags >> 6;
            }
            frame
        });
        let frames = prop::collection::vec(frame, 0..30).prop_map(|frames| frames.concat());
        let stream = (any::<u8>(), frames, any::<bool>(), 0..12usize).prop_map(|(shape, frames, settles, cut)| {
            let mut bytes = vec![shape];
            if shape & 1 == 1 {
                bytes.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            }
            if settles {
                bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
            }
            bytes.extend(frames);
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            bytes
        });
        check(4000, &stream, |bytes| super::walk(&bytes));
        check(2000, &prop::collection::vec(any::<u8>(), 0..120), |bytes| super::walk(&bytes));
    }

    #[test]
    fn budgets_are_kept_to_the_frame() {
        // SETTINGS come first.
        let scripts = prop::collection::vec(any::<[u8; 3]>(), 0..30);
        check(400, &scripts, |scripts| super::count(&[&[6, 1, 0][..], &scripts.concat()].concat()));
    }

    #[test]
    fn what_is_left_of_a_tick_counts_for_the_next() {
        // Three SETTINGS in three seconds are within the budget however they are spaced.
        let mut walker = super::Walker::new(false);
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let mut now = 1_000_000_000;
        for _ in 0..1000 {
            for gap in [1500, 900, 600] {
                now += gap * 1_000_000;
                assert_eq!(walker.walk(&settings, now), None);
            }
        }
    }
}
