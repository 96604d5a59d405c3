//! Heap profiles of a running server whose process has the allocator for it. A process of its own: the allocator and
//! its profile are the process's.

mod support;

use support::Running;

#[global_allocator]
static ALLOCATOR: infer::Allocator = infer::Allocator;

/// Takes memory in a frame of its own.
#[inline(never)]
fn hold(kept: &mut Vec<Vec<u8>>) {
    for _ in 0..64 {
        kept.push(std::hint::black_box(vec![1; 64 << 10]));
        drop(std::hint::black_box(vec![1_u8; 32 << 10]));
    }
}

#[test]
fn who_holds_memory_is_seen_and_who_gave_it_back_is_not() {
    let server = Running::with("forest_classifier", |config| config.admin = Some(([127, 0, 0, 1], 0).into()));
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| server.ask_admin("GET", "/debug/pprof/heap?seconds=1"));
        let mut kept = Vec::new();
        while !asked.is_finished() {
            hold(&mut kept);
            if kept.len() > 4096 {
                // All but what was taken last is given back, from here.
                kept.drain(..kept.len() - 64);
            }
        }
        asked.join().expect("asked")
    });
    let (status, text) = asked;
    assert_eq!(status, 200, "{text}");
    let (head, rest) = text.split_once('\n').expect("lines");
    assert!(head.starts_with("heap profile: ") && head.ends_with("@ heap_v2/131072"), "{head}");
    assert!(rest.contains("\nMAPPED_LIBRARIES:\n") && rest.contains("r-xp"), "mappings");
    let own = hold as *const () as usize;
    let (mut held, mut taken) = (0, 0);
    for line in rest.lines().take_while(|line| !line.is_empty()) {
        let (counts, stack) = line.split_once(" @").expect("a stack");
        let address = |text: &str| usize::from_str_radix(text.trim_start_matches("0x"), 16).expect("hex");
        if !stack.split_ascii_whitespace().map(address).any(|at| (own..own + 2048).contains(&at)) {
            continue;
        }
        let numbers: Vec<u64> =
            counts.split([':', ' ', '[', ']']).filter_map(|word| word.parse().ok()).collect();
        held += numbers[1];
        taken += numbers[3];
    }
    // A third of what is taken is given back at once, most of the rest later.
    assert!(taken > 1 << 20 && held > 0 && held < taken * 3 / 4, "{held} of {taken} bytes");
    let (status, text) = server.ask_admin("GET", "/debug/pprof/heap?seconds=1&format=folded");
    assert_eq!(status, 200, "the next profile: {text}");
    assert_eq!(server.ask_admin("GET", "/debug/pprof/heap?seconds=0").0, 400);
    assert!(server.ask_admin("GET", "/debug/pprof/heap").1.contains("\"kernel\""), "sums without a profile");
}
