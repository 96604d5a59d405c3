//! What a connection waits for: bytes, its time, its neighbours.
//!
//! Not here: what it does with them (`connection`).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Waits for what `poll` polls, at most about as long as the limit. The timer was set for some earlier wait; only
/// when it fires does it learn about this one, which therefore may take up to twice its limit.
pub(super) async fn within<T>(
    timer: &mut Pin<Box<Sleep>>,
    limit: Duration,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
) -> io::Result<Option<T>> {
    let mut deadline = None;
    loop {
        tokio::select! {
            biased;
            done = poll_fn(&mut poll) => return done.map(Some),
            () = &mut *timer => {
                let now = Instant::now();
                if deadline.is_some_and(|deadline| now >= deadline) {
                    return Ok(None);
                }
                let until = *deadline.get_or_insert(now + limit);
                timer.as_mut().reset(until);
            }
        }
    }
}

/// Reads once and says how much; nothing at the end of the stream or of the time.
pub(super) async fn read(
    timer: &mut Pin<Box<Sleep>>,
    stream: &mut (impl AsyncRead + Unpin),
    room: &mut [u8],
    limit: Duration,
) -> io::Result<usize> {
    let read = within(timer, limit, |poller| {
        let mut buffer = ReadBuf::new(room);
        let polled = Pin::new(&mut *stream).poll_read(poller, &mut buffer);
        polled.map_ok(|()| buffer.filled().len())
    });
    Ok(read.await?.unwrap_or(0))
}

/// Waits until everything that is ready on this thread has had its turn.
pub(super) async fn others_first() {
    let mut has_waited = false;
    poll_fn(|poller| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        poller.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
