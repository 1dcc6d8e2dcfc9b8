//! What a peer sends, by its frames' heads: budgets that refill with time, sizes, what comes first, what is left out.
//! Pure. Must not know what the frames mean beyond their type.

use crate::clock::Nanos;

/// What a peer may flood us with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// RST_STREAM: streams opened only to be given up (CVE-2023-44487).
    Resets,
    /// SETTINGS, each of which wants an answer (CVE-2019-9515).
    Settings,
    /// PING, likewise (CVE-2019-9512).
    Pings,
    /// PRIORITY (CVE-2019-9513); deprecated, and ignored.
    Priorities,
    /// WINDOW_UPDATE.
    WindowUpdates,
    /// HEADERS, CONTINUATION or DATA without content and without an end (CVE-2019-9518).
    EmptyFrames,
    /// CONTINUATION (CVE-2024-27316).
    Continuations,
    /// Frames of unknown types.
    Unknown,
}

/// Why a peer is not listened to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// It sends more than its budget: ENHANCE_YOUR_CALM.
    Flood(Flood),
    /// A frame is not as long as its type must be: FRAME_SIZE_ERROR of the connection (RFC 9113 4.2), which `h2` would
    /// call a PROTOCOL_ERROR.
    Size,
    /// Its first frame is not SETTINGS: PROTOCOL_ERROR of the connection (RFC 9113 3.4), which `h2` does not look at.
    Unsettled,
    /// A server allows pushes, which is a client's to say: PROTOCOL_ERROR of the connection (RFC 9113 6.5.2), which `h2`
    /// lets pass.
    Pushes,
    /// It gives streams a window beyond what there can be: FLOW_CONTROL_ERROR of the connection (RFC 9113 6.5.2), which
    /// `h2` would call a PROTOCOL_ERROR.
    Window,
    /// A header block does not come to its end, and no other stream's frame may come before: ENHANCE_YOUR_CALM.
    Overdue,
}

impl Breach {
    /// The error code of GOAWAY (RFC 9113 7).
    pub(super) fn code(self) -> u8 {
        match self {
            Breach::Flood(_) | Breach::Overdue => 11,
            Breach::Window => 3,
            Breach::Size => 6,
            Breach::Unsettled | Breach::Pushes => 1,
        }
    }
}

/// How many floods there are.
const FLOODS: usize = 8;

impl Flood {
    /// Frames that may come at once, and for how long one of them counts. nghttp2 allows 1000 resets and then 33 a second;
    /// here every second stream may be reset besides, as in Envoy: a client with short deadlines gives many up. The other figures leave room for what busy clients were seen to send.
    fn budget(self) -> (u32, u64) {
        const MS: u64 = 1_000_000;
        match self {
            Flood::Resets => (500, 30 * MS),
            Flood::Settings => (100, 1000 * MS),
            Flood::Pings => (1000, 10 * MS),
            Flood::Priorities => (1000, 10 * MS),
            Flood::WindowUpdates => (50_000, MS / 20),
            Flood::EmptyFrames => (100, 100 * MS),
            Flood::Continuations => (1000, 10 * MS),
            Flood::Unknown => (1000, 10 * MS),
        }
    }
}

/// Walks frame heads and keeps the budgets. Pure: time is an argument.
#[derive(Debug)]
pub struct Walker {
    pub(super) head: [u8; 9],
    pub(super) have: usize,
    /// Bytes of the current frame's payload still to pass.
    skip: usize,
    /// Bytes of the connection preface still to pass.
    preface: usize,
    from_client: bool,
    levels: [u32; FLOODS],
    drained_at: [u64; FLOODS],
    /// A frame's head has passed.
    begun: bool,
    /// A header block has begun, and its last frame has not (RFC 9113 4.3).
    continues: bool,
    /// When the latest header block began.
    block_at: Nanos,
    /// Every second stream that is opened makes up for a reset.
    odd: bool,
    /// Bytes that were sent to the peer since the latest that made up for a WINDOW_UPDATE.
    unrequited: usize,
    /// SETTINGS that it has acknowledged.
    acknowledged: u32,
    /// The current frame's payload is settings.
    in_settings: bool,
    /// One of them, as far as it has passed.
    setting: [u8; 6],
    setting_have: usize,
}

/// RFC 9113 6.5.2.
const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// RST_STREAM of an upstream, which answers what was asked: one that reads no body resets each request behind its answer, and
/// one that has too much to do resets all. Only those that fit no stream are too many.
const OF_UPSTREAMS: (u32, u64) = (5000, 1_000_000);
/// CONTINUATION frames that each head may have at any rate: 64 KiB of fields come in as many. `h2` bounds those of one block.
const MAX_LARGE: u32 = 4;

/// For so many bytes that are sent to it a peer may send a WINDOW_UPDATE: what takes much gives much credit, at any rate. One
/// with small windows sends two for each 8 KiB that it gets, of the stream and of the connection.
const CREDITED: usize = 1024;

/// How far a walk has come.
struct Walked {
    /// Bytes that were looked at.
    seen: usize,
    /// Those of them that are passed on, from the first on.
    passed: usize,
    breach: Option<Breach>,
}

/// What one read brings.
pub(super) struct Taken {
    /// Bytes that were looked at.
    pub seen: usize,
    /// Those of them that are passed on, from the first on.
    pub passed: usize,
    /// After them goes a frame's head that came in pieces.
    pub owes_head: bool,
    pub breach: Option<Breach>,
}

/// Length of the client's connection preface (RFC 9113 3.4).
const PREFACE: usize = 24;

impl Walker {
    /// For what a client sends (with its preface), or a server.
    pub fn new(from_client: bool) -> Walker {
        Walker {
            head: [0; 9],
            have: 0,
            skip: 0,
            preface: if from_client { PREFACE } else { 0 },
            from_client,
            levels: [0; FLOODS],
            drained_at: [0; FLOODS],
            begun: false,
            continues: false,
            block_at: 0,
            odd: false,
            unrequited: 0,
            acknowledged: 0,
            in_settings: false,
            setting: [0; 6],
            setting_have: 0,
        }
    }

    /// Whether the peer's first frame, its SETTINGS, has passed as a whole.
    pub fn is_settled(&self) -> bool {
        self.is_between()
    }

    /// How many SETTINGS the peer has acknowledged.
    pub(super) fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// Walks through all of it; names the first breach.
    pub fn walk(&mut self, mut bytes: &[u8], now: Nanos) -> Option<Breach> {
        let mut breach = None;
        while !bytes.is_empty() {
            let walked = self.advance(bytes, now);
            breach = breach.or(walked.breach);
            bytes = &bytes[walked.seen..];
        }
        breach
    }

    /// Takes what was read, or its beginning: at most `room` of it is passed on, and a head that was begun is first made
    /// whole.
    pub(super) fn take(&mut self, data: &[u8], room: usize, now: Nanos) -> Taken {
        let in_head = self.have > 0;
        let count = data.len().min(if in_head { 9 - self.have } else { room });
        let Walked { seen, passed, breach } = self.advance(&data[..count], now);
        let owes_head = in_head && self.have == 0 && !self.says_nothing();
        Taken { seen, passed: if in_head { 0 } else { passed }, owes_head, breach }
    }

    /// Walks on, to the end or up to a frame that is left out: DATA that says nothing, of which `h2` allows a hundred in a
    /// connection's whole life. A head that is not whole yet is held back, since it may be such a one's.
    fn advance(&mut self, bytes: &[u8], now: Nanos) -> Walked {
        let mut breach = None;
        let mut rest = bytes;
        while !rest.is_empty() {
            let passed = rest.len().min(self.preface);
            self.preface -= passed;
            rest = &rest[passed..];
            let passed = rest.len().min(self.skip);
            self.skip -= passed;
            if self.in_settings {
                breach = breach.or_else(|| self.look(&rest[..passed]));
            }
            rest = &rest[passed..];
            let taken = rest.len().min(9 - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&rest[..taken]);
            self.have += taken;
            rest = &rest[taken..];
            if self.have == 9 {
                self.have = 0;
                self.skip = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]) as usize;
                let begun = std::mem::replace(&mut self.begun, true);
                if matches!(self.head[3], 1 | 5 | 9) {
                    // A frame more is no new block.
                    self.block_at = if self.continues { self.block_at } else { now };
                    self.continues = self.head[4] & 4 == 0;
                }
                let settles = self.head[3] == 4 && self.head[4] & 1 == 0;
                self.in_settings = settles;
                self.setting_have = 0;
                let unsettled = (!begun && !settles).then_some(Breach::Unsettled);
                breach = breach.or(unsettled).or_else(|| self.count(now));
                if self.says_nothing() {
                    let seen = bytes.len() - rest.len();
                    return Walked { seen, passed: seen.saturating_sub(9), breach };
                }
            }
        }
        Walked { seen: bytes.len(), passed: bytes.len().saturating_sub(self.have), breach }
    }

    /// Looks at settings; those that are not named here are judged by `h2`.
    #[cold]
    fn look(&mut self, payload: &[u8]) -> Option<Breach> {
        for byte in payload {
            self.setting[self.setting_have] = *byte;
            self.setting_have = (self.setting_have + 1) % self.setting.len();
            if self.setting_have > 0 {
                continue;
            }
            let [a, b, value @ ..] = self.setting;
            match (u16::from_be_bytes([a, b]), u32::from_be_bytes(value)) {
                (ENABLE_PUSH, 1..) if !self.from_client => return Some(Breach::Pushes),
                (INITIAL_WINDOW_SIZE, 0x8000_0000..) => return Some(Breach::Window),
                _ => {}
            }
        }
        None
    }

    /// Whether the latest head is that of DATA without content, padding or an end.
    fn says_nothing(&self) -> bool {
        self.head[3] == 0 && self.skip == 0 && self.head[4] & 9 == 0
    }

    /// Whether a frame has ended and no other has begun.
    pub(super) fn is_between(&self) -> bool {
        self.begun && self.skip == 0 && self.have == 0
    }

    /// So many bytes were sent to the peer.
    #[inline]
    pub(super) fn sent(&mut self, bytes: usize) {
        self.unrequited += bytes;
        if self.unrequited >= CREDITED {
            let level = &mut self.levels[Flood::WindowUpdates as usize];
            *level = level.saturating_sub(u32::try_from(self.unrequited / CREDITED).unwrap_or(u32::MAX));
            self.unrequited %= CREDITED;
        }
    }

    /// When the header block began that has not passed as a whole.
    pub(super) fn block_since(&self) -> Option<Nanos> {
        let is_open = self.continues || (self.skip > 0 && matches!(self.head[3], 1 | 5 | 9));
        is_open.then_some(self.block_at)
    }

    /// Frames that do some work make up for what may come with each of them.
    fn make_up(&mut self, kind: u8) {
        let mut give_back = |flood: Flood, frames: u32| {
            let level = &mut self.levels[flood as usize];
            *level = level.saturating_sub(frames);
        };
        if matches!(kind, 0 | 1 | 8) {
            // Who measures how long its way is asks with each round trip of a transfer, behind a frame of it (grpc-go does).
            give_back(Flood::Pings, 1);
        }
        if kind == 1 {
            // What a client says of each request's priority, in either way; and a head of several frames.
            give_back(Flood::Priorities, 1);
            give_back(Flood::Unknown, 1);
            give_back(Flood::Continuations, MAX_LARGE);
            self.odd = !self.odd;
            give_back(Flood::Resets, u32::from(self.odd || !self.from_client));
        }
    }

    fn count(&mut self, now: Nanos) -> Option<Breach> {
        let (kind, flags, length) = (self.head[3], self.head[4], self.skip);
        let ends_stream = flags & 1 == 1;
        let padded = usize::from(flags >> 3 & 1);
        let sized = match kind {
            0 => length >= padded,
            1 => length >= padded + if flags & 0x20 == 0 { 0 } else { 5 },
            2 => length == 5,
            3 | 8 => length == 4,
            4 => length.is_multiple_of(6) && (flags & 1 == 0 || length == 0),
            6 => length == 8,
            7 => length >= 8,
            _ => true,
        };
        if !sized {
            return Some(Breach::Size);
        }
        self.make_up(kind);
        let flood = match kind {
            0 | 1 if length == 0 && !ends_stream => Flood::EmptyFrames,
            0 | 1 => return None,
            2 => Flood::Priorities,
            3 => Flood::Resets,
            4 if flags & 1 == 1 => {
                self.acknowledged = self.acknowledged.wrapping_add(1);
                return None;
            }
            6 if flags & 1 == 1 => return None,
            4 => Flood::Settings,
            6 => Flood::Pings,
            5 | 7 => return None,
            8 => Flood::WindowUpdates,
            9 if length == 0 => Flood::EmptyFrames,
            9 => Flood::Continuations,
            _ => Flood::Unknown,
        };
        let index = flood as usize;
        let (burst, each_ns) = match flood {
            Flood::Resets if !self.from_client => OF_UPSTREAMS,
            flood => flood.budget(),
        };
        let drained = (now.saturating_sub(self.drained_at[index])) / each_ns;
        if drained > 0 {
            self.levels[index] = self.levels[index].saturating_sub(u32::try_from(drained).unwrap_or(u32::MAX));
            // Not `now`: what is left of it counts for the next.
            self.drained_at[index] += drained * each_ns;
        }
        self.levels[index] += 1;
        (self.levels[index] > burst).then_some(Breach::Flood(flood))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, (payload >> 8) as u8, payload as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(9 + payload, 7);
        frame
    }

    fn settled() -> Walker {
        // A client, whose preface has passed.
        let mut walker = Walker { from_client: true, ..Walker::new(false) };
        assert_eq!(walker.walk(&frame(4, 0, 0), 5), None);
        walker
    }

    #[test]
    fn settings_come_first() {
        for (kind, flags) in [(0, 0), (1, 5), (4, 1), (6, 0), (99, 0)] {
            assert_eq!(Walker::new(false).walk(&frame(kind, flags, 0), 5), Some(Breach::Unsettled));
            assert_ne!(settled().walk(&frame(kind, flags, 0), 5), Some(Breach::Unsettled));
        }
    }

    #[test]
    fn settings_are_looked_at() {
        let settings = |values: &[[u8; 6]]| {
            let mut frame = vec![0, 0, 6 * values.len() as u8, 4, 0, 0, 0, 0, 0];
            frame.extend(values.concat());
            frame
        };
        // A value of 2 for another setting, one of ENABLE_PUSH among others, and what an acknowledgement may not have.
        let fine = settings(&[[0, 3, 0, 0, 0, 2], [0, 2, 0, 0, 0, 0], [0, 3, 0, 2, 0, 1], [0, 4, 127, 255, 255, 255]]);
        let pushes = settings(&[[0, 3, 0, 0, 0, 2], [0, 2, 0, 0, 0, 1]]);
        for cut in [1, 4, 9, 10, 14, 100] {
            let read = |mut walker: Walker, bytes: &[u8]| bytes.chunks(cut).find_map(|part| walker.walk(part, 5));
            assert_eq!(read(Walker::new(false), &fine), None);
            assert_eq!(read(Walker::new(false), &pushes), Some(Breach::Pushes), "cut at {cut}");
            assert_eq!(read(Walker::new(false), &[&fine[..], &fine, &pushes].concat()), Some(Breach::Pushes));
            // A client may.
            assert_eq!(read(settled(), &pushes), None);
            for walker in [Walker::new(false), settled()] {
                assert_eq!(read(walker, &settings(&[[0, 2, 0, 0, 0, 0], [0, 4, 128, 0, 0, 0]])), Some(Breach::Window));
            }
        }
    }

    #[test]
    fn sizes_are_those_of_their_types() {
        for (kind, flags, right, wrong) in [
            (0, 8, 1, 0),
            (1, 0x28, 6, 5),
            (2, 0, 5, 4),
            (3, 0, 4, 5),
            (4, 0, 12, 13),
            (4, 1, 0, 6),
            (6, 0, 8, 7),
            (7, 0, 8, 7),
            (8, 0, 4, 3),
        ] {
            assert_eq!(settled().walk(&frame(kind, flags, right), 5), None, "{kind}");
            assert_eq!(settled().walk(&frame(kind, flags, wrong), 5), Some(Breach::Size), "{kind}");
        }
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for _ in 0..101 {
            bytes.extend(frame(4, 0, 6));
            bytes.extend(frame(0, 0, 300));
            bytes.extend(frame(6, 1, 8));
        }
        for cut in [1, 2, 7, 9, 10, 64, 1000, bytes.len()] {
            let mut walker = Walker::new(true);
            let floods: Vec<_> = bytes.chunks(cut).filter_map(|part| walker.walk(part, 5)).collect();
            assert_eq!(floods, [Breach::Flood(Flood::Settings)], "cut at {cut}");
        }
    }

    #[test]
    fn data_that_says_nothing_is_left_out_however_the_bytes_are_cut() {
        let kept = [frame(4, 0, 6), frame(0, 0, 3), frame(0, 1, 0), frame(0, 8, 1), frame(9, 0, 0)].concat();
        let mut bytes = Vec::new();
        for part in [frame(4, 0, 6), frame(0, 0, 3), frame(0, 1, 0), frame(0, 8, 1), frame(9, 0, 0)] {
            bytes.extend(part);
            bytes.extend([frame(0, 0, 0), frame(0, 4, 0)].concat());
        }
        for cut in [1, 2, 7, 9, 10, 64, bytes.len()] {
            let mut walker = Walker::new(false);
            let mut passed = Vec::new();
            for mut part in bytes.chunks(cut) {
                while !part.is_empty() {
                    let taken = walker.take(part, usize::MAX, 5);
                    assert_eq!(taken.breach, None);
                    passed.extend(&part[..taken.passed]);
                    if taken.owes_head {
                        passed.extend(walker.head);
                    }
                    part = &part[taken.seen..];
                }
            }
            assert_eq!(passed, kept, "cut at {cut}");
        }
    }

    #[test]
    fn a_header_block_is_open_until_its_last_byte_has_passed() {
        let mut walker = settled();
        assert_eq!(walker.block_since(), None);
        let (first, more, last) = (frame(1, 0, 3), frame(9, 0, 2), frame(9, 4, 1));
        walker.walk(&first, 7);
        assert_eq!(walker.block_since(), Some(7));
        for byte in &more {
            walker.walk(&[*byte], 8);
            assert_eq!(walker.block_since(), Some(7), "a frame more is no new block");
        }
        for byte in &last[..last.len() - 1] {
            walker.walk(&[*byte], 9);
            assert_eq!(walker.block_since(), Some(7));
        }
        walker.walk(&last[last.len() - 1..], 9);
        assert_eq!(walker.block_since(), None);
        // One in a single frame, of which a part has come.
        let whole = frame(1, 4, 3);
        walker.walk(&whole[..10], 11);
        assert_eq!(walker.block_since(), Some(11));
        walker.walk(&whole[10..], 12);
        assert_eq!(walker.block_since(), None);
        // One behind another, in one go: the second's time is its own.
        walker.walk(&[&whole[..], &first[..]].concat(), 13);
        assert_eq!(walker.block_since(), Some(13));
        // A body may take its time.
        let mut body = settled();
        body.walk(&frame(0, 0, 5)[..10], 5);
        assert_eq!(body.block_since(), None);
    }

    #[test]
    fn budgets_refill_with_time() {
        let mut walker = settled();
        let reset = frame(3, 0, 4);
        let mut now = 1_000_000_000_000;
        for _ in 0..20_000 {
            now += 31_000_000;
            assert_eq!(walker.walk(&reset, now), None);
        }
        let mut floods = 0;
        for _ in 0..501 {
            floods += usize::from(walker.walk(&reset, now) == Some(Breach::Flood(Flood::Resets)));
        }
        assert!((1..=2).contains(&floods), "{floods}");
    }

    #[test]
    fn each_flood_is_named() {
        for (kind, length, flood) in [
            (3, 4, Flood::Resets),
            (4, 6, Flood::Settings),
            (6, 8, Flood::Pings),
            (2, 5, Flood::Priorities),
            (8, 4, Flood::WindowUpdates),
            (0, 0, Flood::EmptyFrames),
            (1, 0, Flood::EmptyFrames),
            (9, 0, Flood::EmptyFrames),
            (9, 3, Flood::Continuations),
            (99, 3, Flood::Unknown),
        ] {
            let mut walker = settled();
            let (burst, _) = flood.budget();
            for _ in 0..burst - u32::from(kind == 4) {
                assert_eq!(walker.walk(&frame(kind, 0, length), 5), None, "{kind}");
            }
            assert_eq!(walker.walk(&frame(kind, 0, length), 5), Some(Breach::Flood(flood)), "{kind}");
        }
    }

    #[test]
    fn every_second_stream_may_be_reset() {
        let (head, reset) = (frame(1, 5, 3), frame(3, 0, 4));
        let mut busy = settled();
        for _ in 0..10_000 {
            for frame in [&head, &head, &reset] {
                assert_eq!(busy.walk(frame, 5), None);
            }
        }
        let mut rapid = settled();
        let floods = (0..1010).filter(|_| rapid.walk(&head, 5).or(rapid.walk(&reset, 5)).is_some());
        assert!(floods.count() > 0);
    }

    #[test]
    fn credit_for_what_was_sent_is_no_flood() {
        let mut walker = settled();
        let update = frame(8, 0, 4);
        for _ in 0..100_000 {
            // Both windows of 16 KiB, half of which are given back each time.
            walker.sent(8192 + 9);
            assert_eq!(walker.walk(&[&update[..], &update[..]].concat(), 5), None);
        }
        // Small writes add up, and answers to PING are no transfer.
        let mut walker = settled();
        let floods = |walker: &mut Walker, count: usize, bytes: usize| {
            let flooded = |_: &usize| {
                walker.sent(bytes);
                walker.walk(&update, 5).is_some()
            };
            (0..count).filter(flooded).count()
        };
        assert_eq!(floods(&mut walker, 200_000, 1024), 0);
        assert!(floods(&mut walker, 60_000, 17) > 0);
    }

    #[test]
    fn requests_of_every_kind_are_no_flood() {
        // Large heads, and what some clients say of priorities beside each.
        let parts = [frame(1, 1, 3), frame(9, 0, 9), frame(9, 0, 9), frame(9, 0, 9), frame(9, 4, 9)];
        let request = [&parts.concat()[..], &frame(2, 0, 5), &frame(16, 0, 5)].concat();
        let mut walker = settled();
        for _ in 0..20_000 {
            assert_eq!(walker.walk(&request, 5), None);
        }
    }

    #[test]
    fn an_upstream_may_reset_what_it_answers() {
        let mut upstream = Walker::new(false);
        assert_eq!(upstream.walk(&frame(4, 0, 0), 5), None);
        let answer = [frame(1, 5, 3), frame(3, 0, 4)].concat();
        for _ in 0..20_000 {
            assert_eq!(upstream.walk(&answer, 5), None);
        }
        let resets = (0..5001).filter_map(|_| upstream.walk(&frame(3, 0, 4), 5));
        assert_eq!(resets.last(), Some(Breach::Flood(Flood::Resets)));
    }

    #[test]
    fn pings_behind_frames_of_a_transfer_are_no_flood() {
        let ping = frame(6, 0, 8);
        for beside in [frame(0, 0, 5), frame(1, 5, 3), frame(8, 0, 4)] {
            let mut walker = settled();
            for _ in 0..20_000 {
                assert_eq!(walker.walk(&[&beside[..], &ping[..]].concat(), 5), None);
            }
        }
        // More than one behind each is too much, and so are WINDOW_UPDATEs without end.
        let mut walker = settled();
        let (data, update) = (frame(0, 0, 5), frame(8, 0, 4));
        let greedy = (0..1100).filter_map(|_| walker.walk(&[&data[..], &ping[..], &ping[..]].concat(), 5));
        assert_eq!(greedy.last(), Some(Breach::Flood(Flood::Pings)));
        let mut walker = settled();
        let greedy = (0..50_001).filter_map(|_| walker.walk(&[&update[..], &ping[..]].concat(), 5));
        assert_eq!(greedy.last(), Some(Breach::Flood(Flood::WindowUpdates)));
    }

    #[test]
    fn what_ends_a_stream_or_carries_content_is_no_flood() {
        let mut walker = settled();
        for _ in 0..10_000 {
            assert_eq!(walker.walk(&frame(0, 1, 0), 5), None);
            assert_eq!(walker.walk(&frame(1, 5, 3), 5), None);
            assert_eq!(walker.walk(&frame(4, 1, 0), 5), None);
        }
        for number in 0..101 {
            assert_eq!(walker.walk(&frame(0, 0, 0), 5).is_some(), number == 100);
        }
    }
}
