//! Builds a container's root folder and makes it the root.
//!
//! Everything is placed through descriptors below the new root (`openat2` with `RESOLVE_IN_ROOT`), so a link in an
//! image or a volume cannot lead a mount out of it; and `subPath` is resolved with `RESOLVE_BENEATH`, so it cannot
//! lead out of its volume. Binds go by `open_tree` and `move_mount`, which name no path twice. Needs Linux 5.12.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use pod_protocol::shim::{ContainerSpec, Entry, Mount, folder};

use super::sys;

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NO_SET_UID: u64 = libc::MOUNT_ATTR_NOSUID;
/// Devices every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Writable for uid 0 by its number alone, whatever its rights: read-only, as other runtimes do.
const PROC_READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];
/// Tells about the host.
const PROC_MASKED: [&str; 6] =
    ["proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list", "proc/sched_debug", "proc/kmsg"];
/// The part of `/sys` that programs size their thread pools by.
const SYS_CPU: &str = "/sys/devices/system/cpu";

/// Builds the root that the spec describes and enters it. The error says what could not be made.
pub fn build(spec: &ContainerSpec, pod_folder: &Path, attempt_folder: &Path) -> Result<(), String> {
    let place = pod_folder.join(folder::MOUNT_POINT);
    let what = |what: &str, error: io::Error| format!("cannot {what}: {error}");
    sys::mount(c"", Path::new("/"), c"", libc::MS_REC | libc::MS_PRIVATE, c"")
        .map_err(|error| what("make the mounts private", error))?;
    mount_base(spec, &place, attempt_folder).map_err(|error| what("mount the root", error))?;
    let root = open_path(&place).map_err(|error| what("open the root", error))?;
    for entry in &spec.root.entries {
        place_entry(root.as_fd(), entry)
            .map_err(|error| what(&format!("put {:?} into the root", target_of(entry)), error))?;
    }
    place_system(root.as_fd()).map_err(|error| what("mount /proc and /dev", error))?;
    for mount in &spec.mounts {
        place_mount(root.as_fd(), mount).map_err(|error| {
            format!("cannot mount volume {:?} at {:?}: {error}", mount.name, mount.target)
        })?;
    }
    std::env::set_current_dir(&place).map_err(|error| what("enter the root", error))?;
    sys::pivot_root_here().map_err(|error| what("change the root", error))?;
    if spec.read_only_root {
        let root = open_path(Path::new("/")).map_err(|error| what("open the root", error))?;
        sys::set_mount_attributes(root.as_fd(), READ_ONLY, false)
            .map_err(|error| what("make the root read-only", error))?;
    }
    Ok(())
}

fn mount_base(spec: &ContainerSpec, place: &Path, attempt_folder: &Path) -> io::Result<()> {
    let Some(lower) = &spec.root.lower else {
        return sys::mount(c"tmpfs", place, c"tmpfs", libc::MS_NOSUID | libc::MS_NODEV, c"mode=0755");
    };
    let (upper, work) = (attempt_folder.join("upper"), attempt_folder.join("work"));
    std::fs::create_dir_all(&upper)?;
    std::fs::create_dir_all(&work)?;
    let escape = |path: &str| path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,");
    let (upper, work) = (upper.to_string_lossy(), work.to_string_lossy());
    let data =
        format!("lowerdir={},upperdir={},workdir={},userxattr", escape(lower), escape(&upper), escape(&work));
    let data = std::ffi::CString::new(data)?;
    sys::mount(c"overlay", place, c"overlay", libc::MS_NOSUID | libc::MS_NODEV, &data)
}

fn target_of(entry: &Entry) -> &str {
    match entry {
        Entry::Bind { target, .. }
        | Entry::Link { target, .. }
        | Entry::Folder { target, .. }
        | Entry::File { target, .. }
        | Entry::Copy { target, .. } => target,
    }
}

fn place_entry(root: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
    match entry {
        Entry::Bind { source, target } => {
            let source = open_path(Path::new(source))?;
            bind(root, source.as_fd(), target, READ_ONLY | NO_SET_UID)
        }
        Entry::Link { text, target } => symlink(text, path_in(root, target)?.0),
        Entry::Folder { target, mode } => {
            let made = make_folder(root, Path::new(target))?;
            std::fs::set_permissions(fd_path(made.as_fd()), PermissionsExt::from_mode(*mode))
        }
        Entry::File { target, text, mode } => {
            let (path, _parent) = path_in(root, target)?;
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(*mode))
        }
        Entry::Copy { source, target } => {
            let (path, _parent) = path_in(root, target)?;
            copy(Path::new(source), &path)
        }
    }
}

/// Copies a file or a folder with all in it; links stay links, devices and sockets are left out.
fn copy(source: &Path, target: &Path) -> io::Result<()> {
    let kind = std::fs::symlink_metadata(source)?.file_type();
    if kind.is_symlink() {
        return symlink(std::fs::read_link(source)?, target);
    }
    if kind.is_dir() {
        match std::fs::create_dir(target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for item in std::fs::read_dir(source)? {
            let item = item?;
            copy(&item.path(), &target.join(item.file_name()))?;
        }
        return Ok(());
    }
    if kind.is_file() {
        std::fs::copy(source, target)?;
    }
    Ok(())
}

/// `/proc`, `/dev`, and the little of `/sys` that is harmless.
fn place_system(root: BorrowedFd<'_>) -> io::Result<()> {
    let hardened = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount_new(root, "/proc", c"proc", hardened, c"")?;
    // No user namespaces inside: they would give back over the kernel's surface what was just given up.
    let nested = sys::open_below(
        root,
        Path::new("proc/sys/user/max_user_namespaces"),
        libc::O_WRONLY,
        libc::RESOLVE_IN_ROOT,
    );
    if let Ok(nested) = nested {
        let _ = io::Write::write_all(&mut File::from(nested), b"0");
    }
    for path in PROC_READ_ONLY {
        if let Ok(existing) = open_in(root, path) {
            bind(root, existing.as_fd(), path, READ_ONLY)?;
        }
    }
    place_devices(root)?;
    let null = open_path(Path::new("/dev/null"))?;
    for path in PROC_MASKED {
        if open_in(root, path).is_ok() {
            bind(root, null.as_fd(), path, READ_ONLY)?;
        }
    }
    if let Ok(cpus) = open_path(Path::new(SYS_CPU)) {
        bind(root, cpus.as_fd(), SYS_CPU, READ_ONLY | NO_SET_UID)?;
    }
    Ok(())
}

fn place_devices(root: BorrowedFd<'_>) -> io::Result<()> {
    mount_new(root, "/dev", c"tmpfs", libc::MS_NOSUID, c"mode=0755,size=64k")?;
    for device in DEVICES {
        let host = open_path(&Path::new("/dev").join(device))?;
        bind(root, host.as_fd(), &format!("/dev/{device}"), NO_SET_UID)?;
    }
    let hardened = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount_new(root, "/dev/shm", c"tmpfs", hardened, c"mode=1777,size=64m")?;
    let terminals = libc::MS_NOSUID | libc::MS_NOEXEC;
    mount_new(root, "/dev/pts", c"devpts", terminals, c"newinstance,ptmxmode=0666,mode=0620")?;
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ];
    for (text, target) in links {
        symlink(text, path_in(root, target)?.0)?;
    }
    Ok(())
}

fn place_mount(root: BorrowedFd<'_>, mount: &Mount) -> io::Result<()> {
    let Some(source) = &mount.source else {
        let size = if mount.size_bytes == 0 { String::new() } else { format!(",size={}", mount.size_bytes) };
        let data = std::ffi::CString::new(format!("mode=0777{size}"))?;
        return mount_new(root, &mount.target, c"tmpfs", libc::MS_NOSUID | libc::MS_NODEV, &data);
    };
    let whole = open_path(Path::new(source))?;
    let part = match mount.sub_path.as_deref().filter(|path| !path.is_empty()) {
        Some(sub_path) => open_sub_path(whole, Path::new(sub_path))?,
        None => whole,
    };
    let attributes = if mount.read_only { READ_ONLY | NO_SET_UID } else { NO_SET_UID };
    bind(root, part.as_fd(), &mount.target, attributes)
}

/// A path below a volume; missing folders are made, links may lead anywhere inside but not out.
fn open_sub_path(volume: OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    match sys::open_below(volume.as_fd(), path, libc::O_PATH, libc::RESOLVE_BENEATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folders(volume.as_fd(), path, libc::RESOLVE_BENEATH)
        }
        other => other,
    }
}

/// Binds the file or folder that `source` is at `target`, with all that is mounted below it.
fn bind(root: BorrowedFd<'_>, source: BorrowedFd<'_>, target: &str, attributes: u64) -> io::Result<()> {
    let is_folder = std::fs::metadata(fd_path(source))?.is_dir();
    let place = if is_folder { make_folder(root, Path::new(target))? } else { make_file(root, target)? };
    let tree = sys::open_tree(Some(source), Path::new(""))?;
    sys::set_mount_attributes(tree.as_fd(), attributes, true)?;
    sys::move_mount(tree.as_fd(), place.as_fd())
}

fn mount_new(root: BorrowedFd<'_>, target: &str, kind: &CStr, flags: u64, data: &CStr) -> io::Result<()> {
    let place = make_folder(root, Path::new(target))?;
    sys::mount(kind, &fd_path(place.as_fd()), kind, flags, data)
}

/// Opens or makes the folder `path` of the new root.
fn make_folder(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    make_folders(root, path, libc::RESOLVE_IN_ROOT)
}

fn make_folders(base: BorrowedFd<'_>, path: &Path, resolve: u64) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    if let Ok(existing) = sys::open_below(base, &relative(path), flags, resolve) {
        return Ok(existing);
    }
    let mut seen = PathBuf::from(".");
    let mut current = sys::open_below(base, &seen, flags, resolve)?;
    for part in relative(path).components() {
        let Component::Normal(name) = part else { continue };
        seen.push(name);
        let opened = match sys::open_below(base, &seen, flags, resolve) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                sys::make_folder_at(current.as_fd(), Path::new(name), 0o755)?;
                sys::open_below(base, &seen, flags, resolve)?
            }
            other => other?,
        };
        current = opened;
    }
    Ok(current)
}

/// Opens or makes the (empty) file `path` of the new root, for a bind over it.
fn make_file(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    match open_in(root, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (file, _parent) = path_in(root, path)?;
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(file)?;
            open_in(root, path)
        }
        other => other,
    }
}

fn open_in(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    sys::open_below(root, &relative(Path::new(path)), libc::O_PATH, libc::RESOLVE_IN_ROOT)
}

/// A host path for `path` of the new root whose folder exists; valid while the returned descriptor lives.
fn path_in(root: BorrowedFd<'_>, path: &str) -> io::Result<(PathBuf, OwnedFd)> {
    let path = Path::new(path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = make_folder(root, parent)?;
    Ok((fd_path(folder.as_fd()).join(name), folder))
}

fn relative(path: &Path) -> PathBuf {
    let rest = path.strip_prefix("/").unwrap_or(path);
    if rest.as_os_str().is_empty() { PathBuf::from(".") } else { rest.to_path_buf() }
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
    file.map(OwnedFd::from).map_err(|error| super::record::at(path, &error))
}

fn fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
