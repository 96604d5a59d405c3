//! Gives back the memory of code that only the start needed.
//!
//! Reading flags, lists and models runs through far more of the program than serving does, and its pages would stay
//! mapped for ever: two thirds of what a small server has resident. They are the program's file and not changed, so
//! the system may drop them from the process, and finds them in its own cache where they are needed again.
//!
//! Not here: memory that the process allocated.
#![allow(unsafe_code, reason = "which pages the process keeps is a system call on addresses")]

use std::ops::Range;
use std::time::Duration;

/// So long after the server listens: the first probes and calls too run through code that later ones do not, 3 MB of it.
pub(crate) const FIRST_USE: Duration = Duration::from_secs(1);

/// Lets go of the program's unchanged pages. Where that cannot be done nothing changes.
pub(crate) fn after_start() {
    let (Ok(maps), Ok(program)) =
        (std::fs::read_to_string("/proc/self/smaps"), std::fs::read_link("/proc/self/exe"))
    else {
        return;
    };
    for range in unchanged(&maps, &program.to_string_lossy()) {
        // SAFETY: the range is one whole mapping of this process, which the system has just named. It is private,
        // not writable, of the program's file, and none of its pages differs from that file, so that pages which are
        // dropped come back with the same bytes when they are next read or run. The answer needs no check: a refusal
        // leaves all as it was.
        unsafe {
            let start = std::ptr::without_provenance_mut(range.start);
            libc::madvise(start, range.len(), libc::MADV_DONTNEED);
        }
    }
}

/// The mappings of the program's file that cannot be written and have no page of their own, such as those that the
/// loader relocated.
fn unchanged(maps: &str, program: &str) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut current = None;
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let address = |text| usize::from_str_radix(text, 16).ok();
            let is_fixed = words.next().is_some_and(|rights| !rights.contains('w') && rights.ends_with('p'));
            let is_ours = words.nth(3) == Some(program) && words.next().is_none();
            current = address(start).zip(address(end)).filter(|_| is_fixed && is_ours);
        } else if first == "Anonymous:"
            && words.next() == Some("0")
            && let Some((start, end)) = current.take()
        {
            all.push(start..end);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unchanged_mappings_of_the_program_are_let_go() {
        let map = |range: &str, rights: &str, path: &str, anonymous: u32| {
            format!(
                "{range} {rights} 00000000 fe:00 99 {path}\nRss: 8 kB\nAnonymous: {anonymous} kB\nVmFlags: rd\n"
            )
        };
        let maps = [
            map("1000-3000", "r--p", "/bin/slipway", 0),
            map("3000-5000", "r-xp", "/bin/slipway", 0),
            map("5000-6000", "r--p", "/bin/slipway", 4),
            map("6000-7000", "rw-p", "/bin/slipway", 0),
            map("7000-8000", "r-xp", "/lib/libc.so.6", 0),
            map("8000-9000", "r-xs", "/bin/slipway", 0),
            map("9000-a000", "r-xp", "/bin/slipway (deleted)", 0),
        ];
        assert_eq!(unchanged(&maps.concat(), "/bin/slipway"), [0x1000..0x3000, 0x3000..0x5000]);
    }

    #[test]
    fn the_program_goes_on_without_its_pages() {
        after_start();
        assert_eq!("1 2 3".split(' ').flat_map(str::parse::<u32>).sum::<u32>(), 6);
    }
}
