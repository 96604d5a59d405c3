//! The worker's side of the protocol for engines that are written in Rust.
//!
//! An engine reads a model into a [`Backend`], the same trait as in the server's process, and [`serve`] does the rest:
//! it answers each lane on a thread of its own, hands in inputs where they lie in the lane's memory, writes outputs
//! back, turns a panic into the refusal of that call, and returns when the server is gone. So an engine with threads of
//! its own wants one worker with several lanes, and one that must not be called twice at once one lane.
//!
//! ```no_run
//! # use backend_host::{child::{self, Engine, Opened}, protocol::Load};
//! struct Mine;
//! impl Engine for Mine {
//!     fn load(&self, load: &Load) -> Result<Opened, String> {
//!         Err(format!("{} cannot be read", load.path))
//!     }
//! }
//! // The process was started with `--lanes 5:6,7:8` among its arguments.
//! let lanes = child::lanes("5:6,7:8").expect("descriptors of this process");
//! child::serve(lanes, &Mine).expect("served until the server left");
//! ```
//!
//! Not here: workers that are not Rust (`python/worker.py`), starting processes (`process`).

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use models::{Backend, BackendError, Batch, Outputs, Storage, Tensor};
use rustix::net::{RecvFlags, SendFlags};

use crate::memory::{self, Mapping};
use crate::protocol::{self, Fault, Header, Kind, Load, PACKET_BYTES_MAX, Packet, Place, Ready};

/// Something that reads models.
pub trait Engine: Sync {
    /// Reads a model, and warms it up. The error is a text for people: it names what is wrong with which file.
    fn load(&self, load: &Load) -> Result<Opened, String>;
}

/// A model that an engine has read.
pub struct Opened {
    /// What evaluates it. What its outputs are must be what its signature says.
    pub backend: Box<dyn Backend>,
    /// See [`Ready::platform`].
    pub platform: String,
    /// See [`Ready::format`].
    pub format: String,
}

/// One lane of this process.
#[derive(Debug)]
pub struct Lane {
    socket: OwnedFd,
    file: File,
}

/// The lanes that the server left to this process: `socket:memory` by descriptor, with commas between.
pub fn lanes(text: &str) -> Result<Vec<Lane>, String> {
    let number = |text: &str| -> Result<OwnedFd, String> {
        let wrong = || format!("{text:?} is no descriptor of this process");
        let fd: RawFd = text.parse().map_err(|_| wrong())?;
        owned(fd).ok_or_else(wrong)
    };
    let lane = |pair: &str| {
        let (socket, file) = pair.split_once(':').ok_or_else(|| format!("{pair:?} is no lane"))?;
        Ok(Lane { socket: number(socket)?, file: File::from(number(file)?) })
    };
    text.split(',').map(lane).collect()
}

#[allow(unsafe_code)] // A number becomes a descriptor, after a look that it is one.
fn owned(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: `fcntl` with F_GETFD only looks.
    let is_open = fd > 2 && unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1;
    // SAFETY: it is open, and was opened by nobody in this process: the server left it here for this very purpose.
    let own = is_open.then(|| unsafe { OwnedFd::from_raw_fd(fd) })?;
    // What this process starts has no business with it.
    rustix::io::fcntl_setfd(&own, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(own)
}

/// Reads the model that the server asks for and answers its calls until the server is gone.
pub fn serve(lanes: Vec<Lane>, engine: &dyn Engine) -> io::Result<()> {
    let mut lanes = lanes.into_iter();
    let Some(first) = lanes.next() else { return Err(io::Error::other("no lanes")) };
    let mut desk = Desk::new(first)?;
    let Some((backend, bytes_max)) = desk.load(engine)? else { return Ok(()) };
    let backend = &*backend;
    std::thread::scope(|scope| {
        for (index, lane) in lanes.enumerate() {
            let work = move || Desk::new(lane).and_then(|desk| desk.answer(backend, bytes_max));
            std::thread::Builder::new().name(format!("lane-{}", index + 1)).spawn_scoped(scope, work)?;
        }
        desk.answer(backend, bytes_max)
    })
}

/// A lane with what its calls use.
struct Desk {
    lane: Lane,
    mapping: Mapping,
    packet: Vec<u8>,
    /// Packets that come in: always of its full length, so that it is not filled again for each.
    inbox: Vec<u8>,
    places: Vec<Place>,
    outputs: Outputs,
}

impl Desk {
    fn new(lane: Lane) -> io::Result<Self> {
        let mapping = Mapping::of(&lane.file)?;
        Ok(Self {
            lane,
            mapping,
            packet: Vec::new(),
            inbox: vec![0; PACKET_BYTES_MAX],
            places: Vec::new(),
            outputs: Outputs::new(),
        })
    }

    /// The next packet with descriptors; `None` when the server is gone.
    fn receive(&mut self) -> io::Result<Option<Header>> {
        let length = loop {
            match rustix::net::recv(&self.lane.socket, &mut self.inbox[..], RecvFlags::empty()) {
                Ok((length, _)) => break length,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        if length == 0 {
            return Ok(None);
        }
        match protocol::read(&self.inbox[..length], &mut self.places) {
            Ok(Packet::Tensors(header)) => Ok(Some(header)),
            Ok(Packet::Refusal(..)) => Err(io::Error::other("the server refuses nothing")),
            Err(wrong) => Err(io::Error::other(wrong)),
        }
    }

    fn send(&self) -> io::Result<()> {
        match rustix::net::send(&self.lane.socket, &self.packet, SendFlags::NOSIGNAL) {
            // The server is gone; the next receive says so.
            Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn refuse(&mut self, call: u64, fault: Fault, text: &str) -> io::Result<()> {
        protocol::write_refusal(&mut self.packet, call, fault, text);
        self.send()
    }

    /// The model, and how long the memory may be.
    fn load(&mut self, engine: &dyn Engine) -> io::Result<Option<(Box<dyn Backend>, u64)>> {
        let Some(header) = self.receive()? else { return Ok(None) };
        let (Kind::Load, [place]) = (header.kind, self.places.as_slice()) else {
            return Err(io::Error::other("expected a load"));
        };
        let json = memory::read(&self.lane.file, place.offset, place.length.min(1 << 20))?;
        let load: Load = serde_json::from_slice(&json)?;
        let opened = catch_unwind(AssertUnwindSafe(|| engine.load(&load)));
        let opened = opened.unwrap_or_else(|_| Err("reading it panicked".to_owned()));
        let opened = match opened {
            Ok(opened) => opened,
            Err(why) => {
                self.refuse(header.call, Fault::Internal, &why)?;
                return Ok(None);
            }
        };
        let entries = opened.backend.entries();
        if entries.len() > protocol::ENTRIES_MAX {
            let why =
                format!("the model has {} signatures, at most {}", entries.len(), protocol::ENTRIES_MAX);
            self.refuse(header.call, Fault::Internal, &why)?;
            return Ok(None);
        }
        let ready = Ready {
            signature: opened.backend.signature().into(),
            entries: entries.iter().map(Into::into).collect(),
            row_cost_ns: opened.backend.row_cost_ns(),
            platform: opened.platform,
            format: opened.format,
            takes_documents: false,
            outputs_vary: false,
        };
        let json = serde_json::to_vec(&ready)?;
        self.lane.file.write_all_at(&json, header.mark)?;
        let shape = models::Shape::new(&[json.len()]).ok_or_else(|| io::Error::other("too large"))?;
        let length = json.len() as u64;
        let place = Place { dtype: models::DType::U8, shape, offset: header.mark, length };
        protocol::write(&mut self.packet, &Header::new(Kind::Ready, header.call), &[place]);
        self.send()?;
        Ok(Some((opened.backend, load.memory_bytes_max)))
    }

    /// Answers calls until the server is gone.
    fn answer(mut self, backend: &dyn Backend, bytes_max: u64) -> io::Result<()> {
        while let Some(header) = self.receive()? {
            if header.kind != Kind::Run {
                return Err(io::Error::other("expected a call"));
            }
            let start = Instant::now();
            match self.run(backend, &header) {
                Ok(()) => {
                    if let Err(why) = self.put(header.mark, bytes_max) {
                        self.refuse(header.call, Fault::Internal, &why)?;
                        continue;
                    }
                    let mark = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    let answer = Header { mark, rows: header.rows, ..Header::new(Kind::Answer, header.call) };
                    protocol::write(&mut self.packet, &answer, &self.places);
                    self.send()?;
                }
                Err(BackendError::Input(why)) => self.refuse(header.call, Fault::Input, &why)?,
                Err(error) => self.refuse(header.call, Fault::Internal, &error.to_string())?,
            }
        }
        Ok(())
    }

    fn run(&mut self, backend: &dyn Backend, header: &Header) -> Result<(), BackendError> {
        let internal = |why: String| BackendError::Internal(why);
        if header.detail != protocol::Verb::Predict as u8 {
            return Err(BackendError::Input("this engine takes tensors, not documents".into()));
        }
        let end = self.places.iter().filter_map(Place::end).max().unwrap_or(0);
        if end > self.mapping.bytes().len() as u64 {
            self.mapping = Mapping::of(&self.lane.file).map_err(|error| internal(error.to_string()))?;
        }
        let bytes = self.mapping.bytes();
        let tensor = |(index, place): (usize, &Place)| {
            let bytes = bytes.get(place.offset as usize..place.end()? as usize)?;
            Tensor::new(place.dtype, place.shape, Storage::Borrowed(bytes)).or_else(|| {
                tracing::debug!(index, "a tensor whose texts are broken");
                None
            })
        };
        let inputs: Option<Vec<Tensor<'_>>> = self.places.iter().enumerate().map(tensor).collect();
        let inputs = inputs.ok_or_else(|| internal("an input lies outside of the memory".into()))?;
        let batch = Batch { rows: header.rows as usize, inputs: &inputs };
        self.outputs.clear();
        let outputs = &mut self.outputs;
        let done = catch_unwind(AssertUnwindSafe(|| match backend.entries() {
            [] => backend.run(&batch, outputs),
            _ => backend.run_entry(header.entry.into(), &batch, outputs),
        }));
        done.unwrap_or_else(|_| Err(internal("the evaluation panicked".into())))
    }

    /// Writes the outputs into the memory from `mark` on.
    fn put(&mut self, mark: u64, bytes_max: u64) -> Result<(), String> {
        self.places.clear();
        let mut offset = mark;
        for tensor in self.outputs.tensors() {
            let bytes = tensor.bytes();
            let length = bytes.len() as u64;
            let fits = protocol::aligned(offset).filter(|offset| offset.saturating_add(length) <= bytes_max);
            let Some(at) = fits else {
                return Err(format!(
                    "the outputs need more than the {bytes_max} bytes that a worker's memory may have"
                ));
            };
            self.lane.file.write_all_at(bytes, at).map_err(|error| error.to_string())?;
            let shape = models::Shape::new(tensor.dims()).ok_or("an output of too many dimensions")?;
            self.places.push(Place { dtype: tensor.dtype(), shape, offset: at, length });
            offset = at + length;
        }
        Ok(())
    }
}
