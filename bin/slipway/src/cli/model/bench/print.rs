//! What a measurement looks like on a terminal, and as JSON.

use std::time::Duration;

use loadgen::{Pace, Plan, Report, Spacing};
use serde_json::{Value, json};

use super::served::Usage;

/// Lines of the plot, and its width.
const LINES: usize = 12;
const WIDTH: f64 = 50.0;
/// The quantiles that are shown.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// A latency in the unit that suits it.
pub(super) fn short(latency: Duration) -> String {
    let us = latency.as_secs_f64() * 1e6;
    match us {
        0.0..10.0 => format!("{us:.1} us"),
        10.0..1000.0 => format!("{us:.0} us"),
        1000.0..10_000.0 => format!("{:.2} ms", us / 1e3),
        10_000.0..1_000_000.0 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

pub(super) fn pace(plan: &Plan) -> String {
    let times = format!("for {:?} after {:?} of warm-up", plan.duration, plan.warmup);
    match plan.pace {
        Pace::Open { rate, spacing } => {
            let spread = if spacing == Spacing::Even { "evenly" } else { "as a Poisson process" };
            format!("open loop, {rate} requests/s spread {spread}, {times}")
        }
        Pace::Closed => format!("closed loop, {} connections, {times}", plan.connections),
    }
}

pub(super) fn report(report: &Report, usage: Option<&Usage>) {
    println!();
    println!(
        "answered   {} of {} requests, {:.1}/s over {:.1} s, {} connections",
        report.answered,
        report.due,
        report.rate(),
        report.seconds,
        report.connections
    );
    for (what, count) in &report.failures {
        println!("failed     {count} x {what}");
    }
    if report.is_cut {
        println!("cut short  the server fell too far behind the schedule");
    }
    let line = |histogram: &loadgen::Histogram| {
        let each =
            QUANTILES.iter().map(|(name, share)| format!("{name} {}", short(histogram.quantile(*share))));
        each.collect::<Vec<_>>().join("   ")
    };
    println!("latency    {}   max {}", line(&report.latency), short(report.latency.max()));
    println!("sent late  {}   (waits for a connection and this program's own share)", line(&report.lateness));
    if let Some(usage) = usage {
        let each = usage.cpu.as_secs_f64() / (report.answered.max(1) as f64);
        let resident = usage.resident_bytes as f64 / 1e6;
        println!(
            "server     {} of CPU a request, {resident:.1} MB resident",
            short(Duration::from_secs_f64(each))
        );
    }
    plot(report);
    if let (Some(sample), true) = (&report.sample, report.answered == 0) {
        println!("\nthe first answer: {sample}");
    }
}

fn plot(report: &Report) {
    let bars = report.latency.bars(LINES);
    let most = bars.iter().map(|bar| bar.2).max().unwrap_or(0);
    if most == 0 {
        return;
    }
    println!();
    for (edge, share, count) in bars {
        let length = (count as f64 / most as f64 * WIDTH).ceil() as usize;
        println!("{:>9} |{:<50} {:6.2} %", short(edge), "#".repeat(length), share * 100.0);
    }
}

/// The same for programs: latencies in microseconds.
pub(super) fn document(report: &Report, usage: Option<&Usage>) -> Value {
    let us = |latency: Duration| latency.as_nanos() as f64 / 1000.0;
    let quantiles = |histogram: &loadgen::Histogram| {
        let mut all: serde_json::Map<String, Value> = QUANTILES
            .iter()
            .map(|(name, share)| ((*name).to_owned(), us(histogram.quantile(*share)).into()))
            .collect();
        all.insert("max".into(), us(histogram.max()).into());
        all.insert("mean".into(), us(histogram.mean()).into());
        Value::Object(all)
    };
    json!({
        "due": report.due,
        "answered": report.answered,
        "failed": report.failed(),
        "failures": report.failures,
        "rate": report.rate(),
        "seconds": report.seconds,
        "connections": report.connections,
        "cut_short": report.is_cut,
        "latency_us": quantiles(&report.latency),
        "sent_late_us": quantiles(&report.lateness),
        "server": usage.map(|usage| json!({
            "cpu_us_per_request": usage.cpu.as_secs_f64() * 1e6 / report.answered.max(1) as f64,
            "resident_bytes": usage.resident_bytes,
        })),
    })
}
