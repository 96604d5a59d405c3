//! A SQLite file layer in memory that forgets what was not synced when the power goes.
//!
//! Each file has two contents: `live`, which reads see, and `durable`, which a sync copies from it. At a cut all
//! operations begin to fail; when the power is back, `live` is `durable` plus a random part of the un-synced writes,
//! some of them torn, because a real disk writes back in any order. WAL mode needs no shared memory here: the store
//! holds its database exclusively.
#![allow(unsafe_code, reason = "a SQLite VFS is a table of C functions")]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{LazyLock, Mutex, Once};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rusqlite::ffi;

/// The name to open databases with.
pub const NAME: &str = "power-cut";

#[derive(Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Default)]
struct DiskState {
    files: HashMap<String, Content>,
    operations_left: Option<u64>,
    is_cut: bool,
}

static DISKS: LazyLock<Mutex<HashMap<String, DiskState>>> = LazyLock::new(Mutex::default);

/// The disk that holds one folder's files.
pub struct Disk {
    folder: String,
}

impl Disk {
    pub fn of(folder: &Path) -> Self {
        let folder = folder.to_str().unwrap().to_owned();
        DISKS.lock().unwrap().insert(folder.clone(), DiskState::default());
        Self { folder }
    }

    fn with<T>(&self, run: impl FnOnce(&mut DiskState) -> T) -> T {
        run(DISKS.lock().unwrap().get_mut(&self.folder).unwrap())
    }

    pub fn cut_after(&self, operations: u64) {
        self.with(|disk| disk.operations_left = Some(operations));
    }

    pub fn cut_now(&self) {
        self.with(|disk| disk.is_cut = true);
    }

    pub fn restore_power(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        self.with(|disk| {
            disk.is_cut = false;
            disk.operations_left = None;
            for content in disk.files.values_mut() {
                content.live = content.durable.clone();
                for (at, bytes) in std::mem::take(&mut content.unsynced) {
                    match random.random_range(0..4) {
                        0 => write_at(&mut content.live, at, &bytes),
                        1 => write_at(&mut content.live, at, &bytes[..bytes.len() / 2]),
                        _ => {}
                    }
                }
                content.durable = content.live.clone();
            }
        });
    }

    pub fn forget(&self) {
        DISKS.lock().unwrap().remove(&self.folder);
    }
}

fn write_at(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Runs an operation of a file unless the power is gone.
fn operate(path: &str, counts: bool, run: impl FnOnce(&mut DiskState, &str) -> c_int) -> c_int {
    let (folder, name) = path.rsplit_once('/').unwrap();
    let mut disks = DISKS.lock().unwrap();
    let Some(disk) = disks.get_mut(folder) else { return ffi::SQLITE_IOERR };
    if let (true, Some(left)) = (counts, disk.operations_left.as_mut()) {
        *left = left.saturating_sub(1);
        disk.is_cut |= *left == 0;
    }
    if disk.is_cut {
        return ffi::SQLITE_IOERR;
    }
    run(disk, name)
}

#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    path: *mut String,
}

/// The path of an open file.
///
/// # Safety
/// `file` is one that `open` below filled in.
unsafe fn path_of<'a>(file: *mut ffi::sqlite3_file) -> &'a str {
    // SAFETY: SQLite allocates szOsFile bytes, so it is a `File`; `open` set the path and `close` frees it last.
    unsafe { &*(*file.cast::<File>()).path }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite calls this once for a file that `open` filled in.
    unsafe { drop(Box::from_raw((*file.cast::<File>()).path)) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, amount: c_int, at: i64) -> c_int {
    // SAFETY: SQLite gives a buffer of `amount` bytes.
    let (path, to) =
        unsafe { (path_of(file), std::slice::from_raw_parts_mut(to.cast::<u8>(), amount as usize)) };
    operate(path, false, |disk, name| {
        to.fill(0);
        let live = disk.files.get(name).map_or(&[][..], |content| &content.live);
        let rest = live.get(at as usize..).unwrap_or(&[]);
        let have = rest.len().min(to.len());
        to[..have].copy_from_slice(&rest[..have]);
        if have < to.len() { ffi::SQLITE_IOERR_SHORT_READ } else { ffi::SQLITE_OK }
    })
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    amount: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite gives `amount` bytes.
    let (path, from) =
        unsafe { (path_of(file), std::slice::from_raw_parts(from.cast::<u8>(), amount as usize)) };
    operate(path, true, |disk, name| {
        let content = disk.files.entry(name.to_owned()).or_default();
        write_at(&mut content.live, at as usize, from);
        content.unsynced.push((at as usize, from.to_vec()));
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: an open file.
    operate(unsafe { path_of(file) }, true, |disk, name| {
        let content = disk.files.entry(name.to_owned()).or_default();
        content.live.truncate(size as usize);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: an open file.
    operate(unsafe { path_of(file) }, true, |disk, name| {
        let content = disk.files.entry(name.to_owned()).or_default();
        content.durable.clone_from(&content.live);
        content.unsynced.clear();
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: an open file, and a place for the answer.
    let (path, size) = unsafe { (path_of(file), &mut *size) };
    operate(path, false, |disk, name| {
        *size = disk.files.get(name).map_or(0, |content| content.live.len() as i64);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn lock(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_lock(_: *mut ffi::sqlite3_file, held: *mut c_int) -> c_int {
    // SAFETY: a place for the answer.
    unsafe { *held = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector(_: *mut ffi::sqlite3_file) -> c_int {
    512
}

unsafe extern "C" fn traits(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector),
    xDeviceCharacteristics: Some(traits),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives szOsFile bytes for the file, a C string or null, and a place for the flags or null.
    unsafe {
        (*file).pMethods = std::ptr::null();
        if name.is_null() {
            return ffi::SQLITE_CANTOPEN;
        }
        let path = CStr::from_ptr(name).to_str().unwrap().to_owned();
        let opened = operate(&path, false, |disk, name| {
            disk.files.entry(name.to_owned()).or_default();
            ffi::SQLITE_OK
        });
        if opened != ffi::SQLITE_OK {
            return ffi::SQLITE_CANTOPEN;
        }
        (*file.cast::<File>()).path = Box::into_raw(Box::new(path));
        (*file).pMethods = &raw const METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, _sync: c_int) -> c_int {
    // SAFETY: SQLite gives a C string.
    let path = unsafe { CStr::from_ptr(name) }.to_str().unwrap();
    operate(path, true, |disk, name| {
        disk.files.remove(name);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a C string and a place for the answer.
    let (path, out) = unsafe { (CStr::from_ptr(name).to_str().unwrap(), &mut *out) };
    operate(path, false, |disk, name| {
        *out = c_int::from(disk.files.contains_key(name));
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn full_path(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    to: *mut c_char,
) -> c_int {
    // SAFETY: SQLite gives a C string and a buffer of `size` bytes.
    unsafe {
        let bytes = CStr::from_ptr(name).to_bytes_with_nul();
        if bytes.len() > size as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), to, bytes.len());
    }
    ffi::SQLITE_OK
}

/// Makes the layer known to SQLite, once.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the default layer is there after initialisation; the copy lives for ever.
        unsafe {
            assert_eq!(ffi::sqlite3_initialize(), ffi::SQLITE_OK);
            let default = &*ffi::sqlite3_vfs_find(std::ptr::null());
            let layer = ffi::sqlite3_vfs {
                szOsFile: size_of::<File>() as c_int,
                pNext: std::ptr::null_mut(),
                zName: c"power-cut".as_ptr(),
                xOpen: Some(open),
                xDelete: Some(delete),
                xAccess: Some(access),
                xFullPathname: Some(full_path),
                ..*default
            };
            assert_eq!(ffi::sqlite3_vfs_register(Box::into_raw(Box::new(layer)), 0), ffi::SQLITE_OK);
        }
    });
}
