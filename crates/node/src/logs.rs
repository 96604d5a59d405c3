//! Logs of containers, read from the files that the shim writes.
//!
//! Following waits for the kernel to say that the file grew (inotify), and ends when the attempt has ended and all of
//! its log is read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use pod_protocol::shim::folder;
use tokio::sync::mpsc;

use crate::folder::PodFolder;

/// Chunks that wait for a slow reader.
const CHUNKS_MAX: usize = 16;
/// A chunk is sent when it has grown to this.
const CHUNK_BYTES: usize = 32 * 1024;

/// What part of a log is wanted, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Go on while the container runs.
    pub follow: bool,
    /// Of the attempt before the current one.
    pub previous: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only lines since then.
    pub since: Option<Timestamp>,
    /// Only so many last lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// The log of an attempt.
pub fn read(
    folder: &PodFolder,
    container: &str,
    attempt: u32,
    options: Options,
) -> impl Stream<Item = io::Result<Bytes>> + use<> {
    let place = folder.attempt(container, attempt);
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(async move {
        if let Err(error) = send(&place, &options, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

type Sender = mpsc::Sender<io::Result<Bytes>>;

/// Turns lines of the file into what the reader wants.
struct Filter<'a> {
    options: &'a Options,
    left: u64,
    out: Vec<u8>,
    /// A piece of a line came before and had no end.
    inside: bool,
}

async fn send(place: &Path, options: &Options, sender: &Sender) -> io::Result<()> {
    // The watch begins before the first read, so that nothing written in between is missed.
    let watch = if options.follow { Some(Watch::new(place)?) } else { None };
    let mut filter =
        Filter { options, left: options.limit_bytes.unwrap_or(u64::MAX), out: Vec::new(), inside: false };
    let path = place.join(folder::LOG);
    let mut old = place.join(folder::LOG).into_os_string();
    old.push(".1");
    let mut reader = Reader::open(&path)?;
    let mut first = Vec::new();
    if let Ok(rotated) = File::open(PathBuf::from(old)) {
        BufReader::new(rotated).read_to_end(&mut first)?;
    }
    reader.read_lines(&mut first)?;
    for line in last_lines(&first, options.tail_lines) {
        if !filter.take(line) {
            break;
        }
        filter.pass_on(sender, CHUNK_BYTES).await?;
    }
    drop(first);
    filter.pass_on(sender, 1).await?;
    let Some(mut watch) = watch else { return Ok(()) };
    while filter.left > 0 {
        // Asked before reading: what is written after the end is not there.
        let ended = place.join(folder::EXIT).exists();
        let mut text = Vec::new();
        reader.read_lines(&mut text)?;
        for line in lines(&text) {
            if !filter.take(line) {
                break;
            }
        }
        filter.pass_on(sender, 1).await?;
        let over = ended || !place.exists();
        if over && text.is_empty() && !reader.reopen(&path)? {
            break;
        }
        if text.is_empty() && !over {
            tokio::select! {
                changed = watch.changed() => changed?,
                () = sender.closed() => break,
            }
            reader.reopen(&path)?;
        }
    }
    Ok(())
}

/// Complete lines with their ends.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

fn last_lines(text: &[u8], count: Option<u64>) -> Vec<&[u8]> {
    let Some(count) = count else { return lines(text).collect() };
    let mut last: VecDeque<&[u8]> = VecDeque::new();
    let mut complete = 0;
    for line in lines(text) {
        last.push_back(line);
        complete += u64::from(!is_piece(line));
        while complete > count {
            let removed = last.pop_front();
            complete -= u64::from(removed.is_some_and(|line| !is_piece(line)));
        }
    }
    if count == 0 { Vec::new() } else { last.into() }
}

fn is_piece(line: &[u8]) -> bool {
    parse(line).is_some_and(|(_, tag, _)| tag == b'P')
}

/// Time, tag and text (with its end) of a line.
fn parse(line: &[u8]) -> Option<(&str, u8, &[u8])> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, _stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some((std::str::from_utf8(time).ok()?, *tag.first()?, text))
}

impl Filter<'_> {
    /// Takes one line of the file. `false`: the limit is reached.
    fn take(&mut self, line: &[u8]) -> bool {
        let Some((time, tag, text)) = parse(line) else { return true };
        if let Some(since) = self.options.since
            && time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return true;
        }
        let before = self.out.len();
        if self.options.timestamps && !self.inside {
            self.out.extend_from_slice(time.as_bytes());
            self.out.push(b' ');
        }
        self.inside = tag == b'P';
        let text = if self.inside { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        self.out.extend_from_slice(text);
        let added = (self.out.len() - before) as u64;
        if added >= self.left {
            self.out.truncate(before + self.left as usize);
        }
        self.left = self.left.saturating_sub(added);
        self.left > 0
    }

    async fn pass_on(&mut self, sender: &Sender, at_least: usize) -> io::Result<()> {
        if self.out.len() < at_least {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.out));
        sender.send(Ok(chunk)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads whole lines, remembering where it was.
struct Reader {
    file: Option<File>,
}

impl Reader {
    fn open(path: &Path) -> io::Result<Self> {
        match File::open(path) {
            Ok(file) => Ok(Self { file: Some(file) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { file: None }),
            Err(error) => Err(error),
        }
    }

    fn read_lines(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let at = file.stream_position()?;
        let before = out.len();
        file.take(64 << 20).read_to_end(out)?;
        let whole = out[before..].iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
        out.truncate(before + whole);
        file.seek(SeekFrom::Start(at + whole as u64))?;
        Ok(())
    }

    /// Goes on with the new file when the log was rotated. `true`: it was.
    fn reopen(&mut self, path: &Path) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let now = Self::open(path)?;
        let inode = |file: &Option<File>| file.as_ref().and_then(|file| Some(file.metadata().ok()?.ino()));
        if inode(&now.file) == inode(&self.file) {
            return Ok(false);
        }
        *self = now;
        Ok(true)
    }
}

/// Waits for changes in a folder.
struct Watch {
    events: tokio::io::unix::AsyncFd<rustix::fd::OwnedFd>,
}

impl Watch {
    fn new(folder: &Path) -> io::Result<Self> {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF;
        add_watch(&fd, folder, flags)?;
        Ok(Self { events: crate::ready::watch(fd)? })
    }

    async fn changed(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let read = |fd: &rustix::fd::OwnedFd| Ok(rustix::io::read(fd, &mut buffer)?);
        self.events.async_io(tokio::io::Interest::READABLE, read).await.map(drop)
    }
}

/// The last bytes of a log as text, whole lines only: what stands in for a termination message.
pub fn tail(path: &Path, bytes_max: usize) -> String {
    let Ok(mut file) = File::open(path) else { return String::new() };
    let length = file.metadata().map_or(0, |data| data.len());
    // Times and tags take some 45 bytes a line; four times the bound is enough for lines of usual length.
    let _ = file.seek(SeekFrom::Start(length.saturating_sub((bytes_max as u64 * 4).max(4096))));
    let mut text = Vec::new();
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        if let Some((_, tag, rest)) = parse(&line) {
            text.extend_from_slice(rest);
            if tag != b'P' {
                text.push(b'\n');
            }
        }
    }
    let cut = text.len().saturating_sub(bytes_max);
    String::from_utf8_lossy(&text[cut..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    const TEXT: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stdout P tw\n\
                        2026-01-01T00:00:02Z stdout F o\n2026-01-01T00:00:03Z stderr F three\n";

    async fn check(options: Options, want: &str) {
        let data = tempfile::tempdir().unwrap();
        let pod = PodFolder::new(data.path(), "u");
        let place = pod.attempt("main", 0);
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join(folder::LOG), TEXT).unwrap();
        std::fs::write(place.join(folder::EXIT), "{}").unwrap();
        let mut got = Vec::new();
        let mut stream = Box::pin(read(&pod, "main", 0, options));
        while let Some(chunk) = stream.next().await {
            got.extend_from_slice(&chunk.unwrap());
        }
        assert_eq!(String::from_utf8(got).unwrap(), want);
    }

    #[tokio::test]
    async fn logs_are_cut_as_asked() {
        let all = Options::default();
        check(all.clone(), "one\ntwo\nthree\n").await;
        check(Options { follow: true, ..all.clone() }, "one\ntwo\nthree\n").await;
        check(Options { tail_lines: Some(2), ..all.clone() }, "two\nthree\n").await;
        check(Options { tail_lines: Some(0), ..all.clone() }, "").await;
        check(Options { limit_bytes: Some(5), ..all.clone() }, "one\nt").await;
        check(Options { since: "2026-01-01T00:00:02Z".parse().ok(), ..all.clone() }, "two\nthree\n").await;
        check(
            Options { timestamps: true, tail_lines: Some(2), ..all },
            "2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z three\n",
        )
        .await;
    }

    #[tokio::test]
    async fn following_sees_what_is_written_later_and_ends_with_the_container() {
        let data = tempfile::tempdir().unwrap();
        let pod = PodFolder::new(data.path(), "u");
        let place = pod.attempt("main", 0);
        std::fs::create_dir_all(&place).unwrap();
        let mut stream = Box::pin(read(&pod, "main", 0, Options { follow: true, ..Options::default() }));
        std::fs::write(place.join(folder::LOG), TEXT).unwrap();
        assert_eq!(&stream.next().await.unwrap().unwrap()[..], b"one\ntwo\nthree\n");
        std::fs::write(place.join(folder::EXIT), "{}").unwrap();
        assert!(stream.next().await.is_none());
    }

    #[test]
    fn a_tail_stands_in_for_a_message() {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join("log"), TEXT).unwrap();
        assert_eq!(tail(&data.path().join("log"), 8), "o\nthree\n");
    }
}
