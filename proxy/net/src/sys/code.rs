//! The pages of our own program that only the start needed.

/// Lets go of the mapped pages of the program's code and constants: what is still needed comes back from the page cache with
/// its next use (a minor fault for each 64 KiB, once), what only the start needed (parsing arguments and configuration,
/// making certificates) does not, and ceases to count as this process's memory. Returns the bytes that were mapped.
///
/// Only mappings that nothing has ever written are touched: code, and the program's first segment, which holds constants
/// that need no relocation.
pub fn release_start_up_code() -> usize {
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return 0 };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut released = 0;
    for line in maps.lines() {
        let Some((start, length)) = of_program(line, &program.to_string_lossy()) else { continue };
        let start = std::ptr::without_provenance_mut(start);
        // SAFETY: the range is one whole mapping of the program's file, private and never writable, so that each of its
        // pages is the file's: dropped from the page tables, it reads the same when it is touched again. A program that
        // runs cannot be written to (ETXTBSY), and one that is replaced keeps its inode.
        if unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) } == 0 {
            released += length;
        }
    }
    released
}

/// Start and length of a mapping of this file that was never writable.
fn of_program(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (range, flags, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let path = fields.nth(2)?;
    let is_constant = flags == "r-xp" || (flags == "r--p" && offset.bytes().all(|digit| digit == b'0'));
    if path != program || !is_constant {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_written_is_released() {
        let line = "55d0c0000000-55d0c0200000 r-xp 00200000 fe:01 1234                     /usr/bin/onehop";
        assert_eq!(of_program(line, "/usr/bin/onehop"), Some((0x55d0_c000_0000, 0x20_0000)));
        assert_eq!(of_program(line, "/usr/bin/other"), None);
        for (from, to, is) in
            [("r-xp 00200000", "r--p 00000000", true), ("r-xp", "r--p", false), ("r-xp", "rw-p", false)]
        {
            assert_eq!(of_program(&line.replace(from, to), "/usr/bin/onehop").is_some(), is, "{to}");
        }
        assert_eq!(of_program("7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]", "/usr/bin/onehop"), None);
    }

    #[test]
    fn what_is_released_is_there_again_when_it_is_needed() {
        assert!(release_start_up_code() > 0);
        assert_eq!(format!("{:?}", "still".repeat(2)), "\"stillstill\"");
    }
}
