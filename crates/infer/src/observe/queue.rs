//! Between calls and those who tell of them: a queue that drops what does not fit, read a handful at a time.
//!
//! Whoever reads sleeps while items gather, for a while or until there are enough: to be woken for each costs serving
//! more than the item does. An item's place is taken before anything is copied and given up when the item is done with,
//! not when it is read: the bounds hold for all that waits, was read, or is on its way.
//!
//! Not here: what the items are, and the threads that read (`ship`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// What a queue has at most, and how its reader reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Items that are not done.
    pub(super) items_max: usize,
    /// Their bytes.
    pub(super) bytes_max: usize,
    /// As many are read without more waiting.
    pub(super) enough: usize,
    /// How long items gather.
    pub(super) gather: Duration,
}

/// What both ends count.
#[derive(Debug)]
struct Room {
    bounds: Bounds,
    items: AtomicUsize,
    bytes: AtomicUsize,
    /// Items that were not read yet.
    unread: AtomicUsize,
    dropped: AtomicU64,
    is_enough: Notify,
}

/// The place of an item, or of several that are sent as one.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    items: usize,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.items.fetch_sub(self.items, Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// An item in its place.
#[derive(Debug)]
pub(super) struct Held<T> {
    pub(super) item: T,
    _place: Place,
}

/// The end that calls have.
pub(super) struct Sender<T> {
    room: Arc<Room>,
    channel: mpsc::UnboundedSender<Held<T>>,
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("room", &self.room).finish_non_exhaustive()
    }
}

/// The end that is read.
#[derive(Debug)]
pub(super) struct Receiver<T> {
    room: Arc<Room>,
    channel: mpsc::UnboundedReceiver<Held<T>>,
    stop: CancellationToken,
    /// The last look found something, so that the next one need not wait to be woken.
    is_busy: bool,
}

/// A queue, whose reader comes to its end after `stop`.
pub(super) fn queue<T>(bounds: Bounds, stop: CancellationToken) -> (Sender<T>, Receiver<T>) {
    let room = Arc::new(Room {
        bounds,
        items: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        unread: AtomicUsize::new(0),
        dropped: AtomicU64::new(0),
        is_enough: Notify::new(),
    });
    // The places bound it.
    let (sender, receiver) = mpsc::unbounded_channel();
    (
        Sender { room: room.clone(), channel: sender },
        Receiver { room, channel: receiver, stop, is_busy: false },
    )
}

impl<T> Sender<T> {
    /// Room for that many items of that many bytes together; where there is none, they count as dropped.
    pub(super) fn place(&self, items: usize, bytes: usize) -> Option<Place> {
        let room = &self.room;
        let items_now = room.items.fetch_add(items, Relaxed) + items;
        let bytes_now = room.bytes.fetch_add(bytes, Relaxed) + bytes;
        let place = Place { room: room.clone(), items, bytes };
        if items_now > room.bounds.items_max || bytes_now > room.bounds.bytes_max {
            self.drop_items(items);
            return None;
        }
        Some(place)
    }

    /// Puts an item into its place.
    pub(super) fn send(&self, place: Place, item: T) {
        let (count, room) = (place.items, &self.room);
        let unread = room.unread.fetch_add(1, Relaxed) + 1;
        if self.channel.send(Held { item, _place: place }).is_err() {
            room.unread.fetch_sub(1, Relaxed);
            return self.drop_items(count);
        }
        if unread == room.bounds.enough {
            room.is_enough.notify_one();
        }
    }

    /// The same for one item without bytes worth counting; whether there was room.
    pub(super) fn offer(&self, item: T) -> bool {
        let place = self.place(1, 0);
        let has_room = place.is_some();
        if let Some(place) = place {
            self.send(place, item);
        }
        has_room
    }

    fn drop_items(&self, count: usize) {
        self.room.dropped.fetch_add(count as u64, Relaxed);
    }

    /// Items that were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.room.dropped.load(Relaxed)
    }
}

/// Where items are counted that were read and could not be told.
#[derive(Debug, Clone)]
pub(super) struct Losses(Arc<Room>);

impl Losses {
    /// Counts some.
    pub(super) fn add(&self, count: usize) {
        self.0.dropped.fetch_add(count as u64, Relaxed);
    }
}

impl<T> Receiver<T> {
    /// Of what is read here.
    pub(super) fn losses(&self) -> Losses {
        Losses(self.room.clone())
    }

    /// Waits for items to gather and appends them, at least one. False: there are none and there will be none.
    pub(super) async fn take(&mut self, handful: &mut Vec<Held<T>>) -> bool {
        let before = handful.len();
        while handful.len() == before {
            if !self.is_busy {
                let Some(first) = self.first().await else { return false };
                handful.push(first);
            }
            self.gather().await;
            while let Ok(item) = self.channel.try_recv() {
                handful.push(item);
            }
            self.is_busy = handful.len() > before;
        }
        self.room.unread.fetch_sub(handful.len() - before, Relaxed);
        true
    }

    async fn first(&mut self) -> Option<Held<T>> {
        if !self.stop.is_cancelled() {
            tokio::select! {
                biased;
                first = self.channel.recv() => return first,
                () = self.stop.cancelled() => {}
            }
        }
        self.channel.close();
        self.channel.recv().await
    }

    async fn gather(&self) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = self.room.is_enough.notified() => {}
            () = tokio::time::sleep(self.room.bounds.gather) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn bounds(gather: Duration) -> Bounds {
        Bounds { items_max: 4, bytes_max: 10, enough: 3, gather }
    }

    #[tokio::test]
    async fn what_was_read_and_is_not_done_still_has_its_place() {
        let (sender, mut receiver) = queue(bounds(LONG), CancellationToken::new());
        for item in 0..4 {
            assert!(sender.offer(item));
        }
        let mut handful = Vec::new();
        assert!(receiver.take(&mut handful).await);
        assert_eq!(handful.len(), 4);
        assert!(!sender.offer(4), "four are not done");
        handful.pop();
        assert!(sender.offer(5));
        assert!(sender.place(1, 11).is_none(), "too many bytes");
        assert_eq!((sender.dropped(), handful.len()), (2, 3));
        receiver.losses().add(1);
        assert_eq!(sender.dropped(), 3);
    }

    #[tokio::test]
    async fn bytes_and_items_that_are_sent_as_one_count_as_they_are() {
        let (sender, _receiver) = queue::<u8>(bounds(LONG), CancellationToken::new());
        let place = sender.place(2, 6).expect("room");
        assert!(sender.place(1, 5).is_none() && sender.place(3, 0).is_none());
        assert_eq!(sender.dropped(), 4);
        drop(place);
        assert!(sender.place(4, 10).is_some());
    }

    #[tokio::test]
    async fn items_gather_until_there_are_enough_or_time_is_over() {
        // Whatever waits for the hour never comes back.
        let (sender, mut receiver) = queue(bounds(LONG), CancellationToken::new());
        let mut handful = Vec::new();
        (0..3).for_each(|item| assert!(sender.offer(item)));
        assert!(receiver.take(&mut handful).await);
        assert_eq!(handful.len(), 3);
        handful.clear();
        let reading = tokio::spawn(async move {
            assert!(receiver.take(&mut handful).await);
            handful.len()
        });
        for item in 0..3 {
            assert!(sender.offer(item));
            tokio::task::yield_now().await;
        }
        assert_eq!(reading.await.expect("read"), 3);
        let (sender, mut receiver) = queue(bounds(Duration::from_millis(1)), CancellationToken::new());
        let mut handful = Vec::new();
        assert!(sender.offer(0));
        assert!(receiver.take(&mut handful).await);
        assert_eq!(handful.len(), 1);
    }

    #[tokio::test]
    async fn the_end_waits_for_nothing_and_loses_nothing() {
        let stop = CancellationToken::new();
        let (sender, mut receiver) = queue(bounds(LONG), stop.clone());
        sender.offer(0);
        sender.offer(1);
        stop.cancel();
        let mut handful = Vec::new();
        while receiver.take(&mut handful).await {}
        assert_eq!(handful.iter().map(|held| held.item).collect::<Vec<_>>(), [0, 1]);
        sender.offer(2);
        assert_eq!(sender.dropped(), 1, "nobody reads any more");
    }
}
