//! The loop that owns the sockets: one thread, one epoll, one timer.
//!
//! The timer is the kernel's (`timerfd`), because a poll's own timeout knows milliseconds only. What is due is put in
//! a queue by its due time; whatever connection is free takes the oldest. A connection is opened when none is free.
//!
//! Not here: replies (`http1`, `http2`), the schedule itself (`schedule`).

mod connection;

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::http2::Outcome;
use crate::plan::{Pace, Plan, Report, Requests};
use crate::schedule::Schedule;
use crate::target::Target;
use crate::{Error, Result};
use connection::{Connection, Event, Given};

/// The timer's place among the connections.
const TIMER: u64 = u64::MAX;
/// Sockets that are looked at in one turn.
const EVENTS: usize = 256;
/// The most requests that wait for a connection.
const QUEUE_MAX: usize = 1 << 20;
/// How often connections are searched for answers that are late.
const LOOK: Duration = Duration::from_millis(100);
/// The most connections that may be lost without an answer between them.
const LOST_MAX: u64 = 1000;

/// Sends what the plan says and waits for the answers. Blocks for the plan's time and at most its patience.
pub fn run(target: &Target, requests: &Requests, plan: &Plan) -> Result<Report> {
    if requests.is_empty() {
        return Err(Error::Target("there is no request to send".into()));
    }
    let mut drive = Drive::new(target, requests, plan)?;
    drive.turn_until_done()?;
    drive.finish()
}

struct Drive<'a> {
    target: &'a Target,
    requests: &'a Requests,
    plan: &'a Plan,
    start: Instant,
    epoll: OwnedFd,
    timer: OwnedFd,
    schedule: Option<Schedule>,
    next_due: u64,
    warm_ns: u64,
    end_ns: u64,
    /// Due times of requests that wait for a connection.
    queue: VecDeque<u64>,
    connections: Vec<Option<Connection>>,
    /// Places in `connections` that are free.
    holes: Vec<usize>,
    /// Connections that can take a request, most recently used last.
    idle: Vec<usize>,
    opening: usize,
    open: usize,
    under_way: usize,
    next_message: usize,
    lost: u64,
    last_failure: Option<String>,
    report: Report,
}

fn new_epoll() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
    epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
    Ok((epoll, timer))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

impl<'a> Drive<'a> {
    fn new(target: &'a Target, requests: &'a Requests, plan: &'a Plan) -> Result<Self> {
        let (epoll, timer) = new_epoll().map_err(Error::Loop)?;
        let schedule = match plan.pace {
            Pace::Open { rate, spacing } if rate > 0.0 && rate.is_finite() => {
                Some(Schedule::new(rate, spacing, 1))
            }
            Pace::Open { rate, .. } => return Err(Error::Target(format!("a rate of {rate} requests/s"))),
            Pace::Closed => None,
        };
        let mut drive = Self {
            target,
            requests,
            plan,
            start: Instant::now(),
            epoll,
            timer,
            schedule,
            next_due: 0,
            warm_ns: nanoseconds(plan.warmup),
            end_ns: nanoseconds(plan.warmup) + nanoseconds(plan.duration),
            queue: VecDeque::new(),
            connections: Vec::new(),
            holes: Vec::new(),
            idle: Vec::new(),
            opening: 0,
            open: 0,
            under_way: 0,
            next_message: 0,
            lost: 0,
            last_failure: None,
            report: Report::default(),
        };
        // The first connection is made before the clock starts: a server that is not there is told at once.
        let first = match plan.pace {
            Pace::Open { .. } => 1,
            Pace::Closed => plan.connections.max(1),
        };
        for _ in 0..first {
            drive.connect_now()?;
        }
        // Timers of this thread may be this late; the default of 50 us would show in every latency.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        drive.start = Instant::now();
        match &mut drive.schedule {
            Some(schedule) => drive.next_due = schedule.next_ns(),
            None => {
                let all = drive.open * drive.streams();
                drive.queue.extend(std::iter::repeat_n(0, all));
            }
        }
        Ok(drive)
    }

    fn streams(&self) -> usize {
        if matches!(self.requests, Requests::Grpc { .. }) { self.plan.streams.max(1) } else { 1 }
    }

    fn now(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }

    fn connect_now(&mut self) -> Result<()> {
        let reach = |source| Error::Reach { address: self.target.address, source };
        let connection = Connection::open(self.target, self.requests, self.plan.patience).map_err(reach)?;
        self.add(connection).map_err(reach)?;
        self.opening -= 1;
        Ok(())
    }

    /// Takes a connection in; it counts as opening until it can be written to.
    fn add(&mut self, connection: Connection) -> std::io::Result<()> {
        let place = self.holes.pop().unwrap_or(self.connections.len());
        let flags = if connection.is_open() { epoll::EventFlags::IN } else { epoll::EventFlags::OUT };
        epoll::add(&self.epoll, connection.socket(), epoll::EventData::new_u64(place as u64), flags)?;
        let is_open = connection.is_open();
        if place == self.connections.len() {
            self.connections.push(Some(connection));
        } else {
            self.connections[place] = Some(connection);
        }
        if is_open {
            self.make_idle(place);
        }
        self.opening += 1;
        self.open += 1;
        self.report.connections = self.report.connections.max(self.open);
        Ok(())
    }

    fn make_idle(&mut self, place: usize) {
        if let Some(connection) = &mut self.connections[place]
            && !std::mem::replace(&mut connection.is_idle, true)
        {
            self.idle.push(place);
        }
    }

    fn turn_until_done(&mut self) -> Result<()> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS];
        let patience_ns = nanoseconds(self.plan.patience);
        let mut next_look = nanoseconds(LOOK);
        let mut buffer = vec![0; 64 << 10];
        let mut ready = Vec::with_capacity(EVENTS);
        loop {
            let now = self.now();
            self.take_due(now);
            self.assign()?;
            if self.is_done(now) {
                return Ok(());
            }
            if now >= next_look {
                self.drop_late(now.saturating_sub(patience_ns))?;
                next_look = now + nanoseconds(LOOK);
            }
            let until = if self.schedule.is_some() && self.next_due < self.end_ns {
                self.next_due.min(next_look)
            } else {
                next_look
            };
            self.wait(&mut events, until, &mut ready)?;
            for place in ready.drain(..) {
                self.serve(place, &mut buffer)?;
            }
        }
    }

    /// Sleeps until a socket is ready or the time has come; the places of what is ready are put to `ready`.
    fn wait(
        &mut self,
        events: &mut [MaybeUninit<epoll::Event>],
        until: u64,
        ready: &mut Vec<usize>,
    ) -> Result<()> {
        let now = self.now();
        let left = until.saturating_sub(now);
        let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
        if left > 0 {
            let value =
                Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as i64 };
            let spec = Itimerspec { it_interval: no_wait, it_value: value };
            let set = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec);
            set.map_err(|errno| Error::Loop(errno.into()))?;
        }
        let timeout = if left == 0 { Some(&no_wait) } else { None };
        match epoll::wait(&self.epoll, events, timeout) {
            Ok((seen, _)) => {
                let places = seen.iter().map(|event| event.data.u64()).filter(|place| *place != TIMER);
                ready.extend(places.map(|place| place as usize));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::Loop(errno.into())),
        }
    }

    fn take_due(&mut self, now: u64) {
        let Some(schedule) = &mut self.schedule else { return };
        let behind = self.queue.front().map_or(0, |due| now.saturating_sub(*due));
        if behind > nanoseconds(self.plan.behind_max) || self.queue.len() >= QUEUE_MAX {
            self.report.is_cut = true;
            self.end_ns = self.end_ns.min(now);
            for due in self.queue.drain(..) {
                if due >= self.warm_ns {
                    self.report.due += 1;
                    *self.report.failures.entry("never sent: too far behind".into()).or_default() += 1;
                }
            }
        }
        while self.next_due <= now && self.next_due < self.end_ns {
            self.queue.push_back(self.next_due);
            self.next_due = schedule.next_ns();
        }
    }

    fn is_done(&self, now: u64) -> bool {
        if now < self.end_ns {
            return false;
        }
        let closed_is_over = self.schedule.is_none() && self.under_way == 0;
        let open_is_over = self.schedule.is_some() && self.queue.is_empty() && self.under_way == 0;
        closed_is_over || open_is_over || now > self.end_ns + nanoseconds(self.plan.patience)
    }

    /// Gives what is due to connections that are free; opens one for each that is left over.
    fn assign(&mut self) -> Result<()> {
        if self.schedule.is_none() && self.now() >= self.end_ns {
            return Ok(());
        }
        let streams = self.streams();
        let mut refused = Vec::new();
        while let Some(due) = self.queue.front().copied() {
            let Some(place) = self.idle.pop() else {
                self.open_more()?;
                break;
            };
            let Some(connection) = &mut self.connections[place] else { continue };
            connection.is_idle = false;
            let now = nanoseconds(self.start.elapsed());
            // A closed loop's request is due when it can be sent.
            let due = if self.schedule.is_some() { due } else { now };
            let message = self.next_message;
            match connection.start(self.requests, message, Given { due, sent: now }) {
                Ok(true) => {
                    self.queue.pop_front();
                    self.next_message = (message + 1) % self.requests.len();
                    self.under_way += 1;
                    if due >= self.warm_ns {
                        self.report.due += 1;
                        self.report.lateness.record(now - due);
                    }
                    if connection.under_way() < streams {
                        self.make_idle(place);
                    }
                    self.flush(place)?;
                }
                Ok(false) => refused.push(place),
                Err(what) => return Err(Error::Target(what)),
            }
        }
        // They had no room of their own; the next answer may make some.
        refused.into_iter().for_each(|place| self.make_idle(place));
        Ok(())
    }

    fn open_more(&mut self) -> Result<()> {
        if self.schedule.is_none() {
            return Ok(());
        }
        let wanted = self.queue.len().div_ceil(self.streams());
        while self.opening < wanted && self.open < self.plan.connections.max(1) {
            match Connection::opening(self.target, self.requests) {
                Ok(connection) => {
                    self.add(connection).map_err(Error::Loop)?;
                }
                Err(error) => {
                    self.failed(1, &format!("cannot connect: {error}"));
                    self.queue.pop_front();
                    return self.check_lost();
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self, place: usize) -> Result<()> {
        let Some(connection) = &mut self.connections[place] else { return Ok(()) };
        match connection.flush() {
            Ok(None) => Ok(()),
            Ok(Some(flags)) => {
                let data = epoll::EventData::new_u64(place as u64);
                epoll::modify(&self.epoll, connection.socket(), data, flags)
                    .map_err(|errno| Error::Loop(errno.into()))
            }
            Err(error) => self.lose(place, &error.to_string()),
        }
    }

    fn serve(&mut self, place: usize, buffer: &mut [u8]) -> Result<()> {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else {
            return Ok(());
        };
        let was_open = connection.is_open();
        let event = connection.read(buffer);
        if !was_open && connection.is_open() {
            self.opening -= 1;
            self.make_idle(place);
        }
        match event {
            Ok(Event::Nothing) => {}
            Ok(Event::Done { closes }) => self.collect(place, closes)?,
            Err(error) => return self.lose(place, &error),
        }
        self.flush(place)
    }

    /// Counts the answers that a connection has got.
    fn collect(&mut self, place: usize, closes: bool) -> Result<()> {
        let now = self.now();
        let Some(connection) = &mut self.connections[place] else { return Ok(()) };
        let done = std::mem::take(&mut connection.done);
        if self.report.sample.is_none() {
            self.report.sample = connection.take_sample();
        }
        if !closes && connection.is_usable() {
            self.make_idle(place);
        }
        for (given, outcome) in &done {
            self.under_way -= 1;
            if self.schedule.is_none() {
                self.queue.push_back(now);
            }
            let what = match outcome {
                Outcome::Status(0) => {
                    self.lost = 0;
                    if given.due >= self.warm_ns {
                        self.report.answered += 1;
                        self.report.latency.record(now - given.due);
                    }
                    continue;
                }
                Outcome::Status(status) => format!("grpc-status {status}"),
                Outcome::Broken(what) => what.clone(),
            };
            self.failed(u64::from(given.due >= self.warm_ns), &what);
        }
        if closes { self.lose(place, "the server closed the connection") } else { Ok(()) }
    }

    fn failed(&mut self, count: u64, what: &str) {
        self.last_failure = Some(what.to_owned());
        if count > 0 {
            *self.report.failures.entry(what.to_owned()).or_default() += count;
        }
    }

    /// Gives a connection up; what was under way on it has failed.
    fn lose(&mut self, place: usize, why: &str) -> Result<()> {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::take) else { return Ok(()) };
        let _ = epoll::delete(&self.epoll, connection.socket());
        if !connection.is_open() {
            self.opening -= 1;
        }
        self.idle.retain(|idle| *idle != place);
        self.holes.push(place);
        self.open -= 1;
        let unanswered = connection.unanswered();
        self.under_way -= unanswered.len();
        let counted = unanswered.iter().filter(|given| given.due >= self.warm_ns).count() as u64;
        if !unanswered.is_empty() || !connection.is_open() {
            self.lost += 1;
            self.failed(counted, why);
            self.check_lost()?;
        }
        if self.schedule.is_none() && self.now() < self.end_ns {
            self.queue.extend(std::iter::repeat_n(0, unanswered.len()));
            let reach = |source| Error::Reach { address: self.target.address, source };
            let again = Connection::open(self.target, self.requests, self.plan.patience).map_err(reach)?;
            self.add(again).map_err(Error::Loop)?;
            self.opening -= 1;
        }
        Ok(())
    }

    fn check_lost(&self) -> Result<()> {
        if self.lost > LOST_MAX {
            return Err(Error::Nothing(self.last_failure.clone().unwrap_or_default()));
        }
        Ok(())
    }

    /// Gives up connections whose oldest request was sent before `sent`.
    fn drop_late(&mut self, sent: u64) -> Result<()> {
        let is_late = |connection: &Connection| connection.oldest().is_some_and(|oldest| oldest < sent);
        let late: Vec<usize> = (0..self.connections.len())
            .filter(|place| self.connections[*place].as_ref().is_some_and(is_late))
            .collect();
        let why = format!("no answer within {:?}", self.plan.patience);
        late.into_iter().try_for_each(|place| self.lose(place, &why))
    }

    fn finish(mut self) -> Result<Report> {
        let why = format!("no answer within {:?}", self.plan.patience);
        for place in 0..self.connections.len() {
            let Some(connection) = &self.connections[place] else { continue };
            let counted = connection.unanswered().iter().filter(|given| given.due >= self.warm_ns).count();
            self.failed(counted as u64, &why);
        }
        let never: Vec<u64> = self.queue.iter().copied().filter(|due| *due >= self.warm_ns).collect();
        if self.schedule.is_some() && !never.is_empty() {
            self.report.due += never.len() as u64;
            self.failed(never.len() as u64, "never sent: no connection was free");
        }
        self.report.seconds = self.end_ns.saturating_sub(self.warm_ns) as f64 / 1e9;
        match self.last_failure {
            Some(failure) if self.report.answered == 0 && self.report.failed() == 0 => {
                Err(Error::Nothing(failure))
            }
            _ => Ok(self.report),
        }
    }
}
