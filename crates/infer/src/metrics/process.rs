//! What the kernel says of the process, under the names that Prometheus' clients give it.
//!
//! Not here: what the allocator says (`observe::heap`).

use super::text::Text;

/// Clock ticks in a second as `/proc` counts them: a constant of Linux' interface to programs.
const TICKS: f64 = 100.0;
/// The number that `proc(5)` gives the first field after the name.
const FIELDS_AFTER_NAME: usize = 3;

/// Appends the metrics; what cannot be read is left out.
pub(super) fn write(text: &mut Text) {
    if let Some(seen) = Seen::read() {
        text.family(
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
        );
        text.sample("process_cpu_seconds_total", &[], seen.cpu_seconds);
        text.family("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
        text.sample("process_resident_memory_bytes", &[], seen.resident_bytes);
        text.family("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.");
        text.sample("process_virtual_memory_bytes", &[], seen.virtual_bytes);
        text.family("process_threads", "gauge", "Number of OS threads in the process.");
        text.sample("process_threads", &[], seen.threads);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        text.family("process_open_fds", "gauge", "Number of open file descriptors.");
        text.sample("process_open_fds", &[], open.count());
    }
}

struct Seen {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
}

impl Seen {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        // The name, in parentheses, may have spaces and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - FIELDS_AFTER_NAME)?.parse::<u64>().ok();
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / TICKS,
            resident_bytes: line("VmRSS:")? * 1024,
            virtual_bytes: field(23)?,
            threads: field(20)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_are_read() {
        let mut text = Text::default();
        write(&mut text);
        let value = |name: &str| {
            let line = text.0.lines().find(|line| line.starts_with(name)).expect(name);
            line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok()).expect("a number")
        };
        assert!((1e5..1e12).contains(&value("process_resident_memory_bytes ")));
        assert!(value("process_virtual_memory_bytes ") >= value("process_resident_memory_bytes "));
        assert!(value("process_threads ") >= 1.0 && value("process_open_fds ") >= 3.0);
    }
}
