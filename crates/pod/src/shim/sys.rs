//! The system calls of the shim that std does not offer, each as a safe function.
//!
//! All `unsafe` of the shim is here. The shim has one thread, so a child made by `clone` may go on in Rust.
#![allow(unsafe_code)] // Raw system calls: clone, mounts, descriptors over sockets. Each has a note.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Turns −1 into the error that the kernel gave.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A path as the kernel wants it.
pub fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Which side of a `clone` the caller is on.
pub enum Side {
    /// The new process.
    Child,
    /// The caller, with the child's pid.
    Parent(i32),
}

/// `clone` without a stack of its own: a fork with namespace flags.
pub fn clone(flags: i32) -> io::Result<Side> {
    // SAFETY: with a null stack the child goes on with a copy of this one; the process has one thread,
    // so no lock can be held by a thread that the child lacks.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags | libc::SIGCHLD),
            0usize,
            0usize,
            0usize,
            0usize,
        )
    })?;
    Ok(if pid == 0 { Side::Child } else { Side::Parent(pid as i32) })
}

/// Ends the process without running any destructor: for the child side of a [`clone`].
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Enters a namespace (or, for a pidfd, several).
pub fn setns(namespace: BorrowedFd<'_>, kind: i32) -> io::Result<()> {
    // SAFETY: takes a live descriptor and an integer.
    check(i64::from(unsafe { libc::setns(namespace.as_raw_fd(), kind) })).map(drop)
}

/// A handle of a process that survives the reuse of its pid.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the kernel returns a new descriptor that nobody else owns.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Makes this process the leader of a new session.
pub fn setsid() -> io::Result<()> {
    // SAFETY: no arguments.
    check(i64::from(unsafe { libc::setsid() })).map(drop)
}

/// Makes a terminal the controlling one of this session.
pub fn control_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a live descriptor; the request takes an integer.
    check(i64::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) })).map(drop)
}

/// `prctl` with integer arguments.
pub fn prctl(option: i32, argument: u64) -> io::Result<()> {
    // SAFETY: only options with integer arguments are used here.
    check(i64::from(unsafe { libc::prctl(option, argument, 0u64, 0u64, 0u64) })).map(drop)
}

/// Sends a signal; a process that is gone is no error.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: integers only. The pid is a child of ours that has not been reaped, so it cannot be another process.
    unsafe { libc::kill(pid, signal) };
}

/// Reaps one ended child, if there is one: its pid and wait status.
pub fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Exit code (128 + signal) and signal of a wait status.
pub fn exit_of(status: i32) -> (i32, Option<i32>) {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        (128 + signal, Some(signal))
    } else {
        (libc::WEXITSTATUS(status), None)
    }
}

/// Blocks SIGCHLD and returns a descriptor that is readable when one is pending. SIGPIPE and SIGHUP are ignored.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before use; the new descriptor has no other owner.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        check(i64::from(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())))?;
        let fd = check(i64::from(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Gives a child the signal state that a program expects.
pub fn reset_signals() {
    // SAFETY: the set is initialised before use; setting defaults installs no handler.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// A pipe, closed on exec: read end, write end.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for both; the descriptors are new.
    unsafe {
        check(i64::from(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC)))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Makes reads and writes return instead of waiting.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a live descriptor and integers.
    unsafe {
        let flags = check(i64::from(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL)))?;
        check(i64::from(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags as i32 | libc::O_NONBLOCK)))
            .map(drop)
    }
}

/// A pseudo terminal: master and terminal side.
pub fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    // SAFETY: new descriptors without another owner; TIOCGPTPEER takes flags.
    unsafe {
        let master = check(i64::from(libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC)))?;
        let master = OwnedFd::from_raw_fd(master as RawFd);
        check(i64::from(libc::grantpt(master.as_raw_fd())))?;
        check(i64::from(libc::unlockpt(master.as_raw_fd())))?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let side = check(i64::from(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags)))?;
        Ok((master, OwnedFd::from_raw_fd(side as RawFd)))
    }
}

/// Puts descriptors at 0, 1 and 2; these stay open on exec.
pub fn set_stdio(stdio: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    // First above 2, so that none is overwritten before it is used.
    let mut high = [0; 3];
    for (index, fd) in stdio.iter().enumerate() {
        // SAFETY: a live descriptor; the copy closes on exec.
        high[index] =
            check(i64::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10) }))? as RawFd;
    }
    for (index, fd) in high.into_iter().enumerate() {
        // SAFETY: both are integers; what was open at the target is closed, which is meant.
        check(i64::from(unsafe { libc::dup2(fd, index as i32) }))?;
    }
    Ok(())
}

/// Marks every descriptor from 3 up to be closed on exec.
pub fn close_on_exec_from_3() {
    // SAFETY: integers only; a kernel without it leaves our descriptors, which are all closed on exec anyway.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Waits until a descriptor is ready or the time is up (−1: for ever).
pub fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> io::Result<()> {
    // SAFETY: the slice outlives the call.
    let result = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
    match check(i64::from(result)) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// One read of a descriptor that others may share.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length belong together.
    let count = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    check(count as i64).map(|count| count as usize)
}

/// One read of a stream socket, with the descriptors that came along.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut control = [0u64; 8];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: the message points at buffers that live through the call; the control messages are walked with the
    // system's own macros, and each descriptor in them is new and owned by nobody else.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = std::mem::size_of_val(&control) as _;
        let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
        let count = check(libc::recvmsg(socket.as_raw_fd(), &mut message, flags) as i64)?;
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
        Ok(count as usize)
    }
}

/// One write to a stream socket, with at most one descriptor; never waits.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut control = [0u64; 4];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the message points at buffers that live through the call; the control buffer has room for one
    // descriptor and is filled with the system's own macros.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        if let Some(fd) = fd {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd.as_raw_fd());
        }
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        Ok(check(libc::sendmsg(socket.as_raw_fd(), &message, flags) as i64)? as usize)
    }
}

/// `openat2` below `folder`; `resolve` are `RESOLVE_*` flags.
pub fn open_below(folder: BorrowedFd<'_>, path: &Path, flags: i32, resolve: u64) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: `how` is plain data that lives through the call; the descriptor is new.
    unsafe {
        let mut how: libc::open_how = std::mem::zeroed();
        how.flags = (flags | libc::O_CLOEXEC) as u64;
        how.mode = if flags & libc::O_CREAT != 0 { 0o644 } else { 0 };
        how.resolve = resolve;
        let size = size_of::<libc::open_how>();
        let fd = check(libc::syscall(libc::SYS_openat2, folder.as_raw_fd(), path.as_ptr(), &how, size))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Makes a folder in `folder`; `name` is one component.
pub fn make_folder_at(folder: BorrowedFd<'_>, name: &Path, mode: u32) -> io::Result<()> {
    let name = c_path(name)?;
    // SAFETY: a live descriptor and a string that lives through the call.
    check(i64::from(unsafe { libc::mkdirat(folder.as_raw_fd(), name.as_ptr(), mode) })).map(drop)
}

/// Mounts a file system.
pub fn mount(source: &CStr, target: &Path, kind: &CStr, flags: u64, data: &CStr) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: all strings live through the call.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    check(i64::from(result)).map(drop)
}

/// A detached copy of the mounts at `path`, or (with an empty path) at the file that `at` is.
pub fn open_tree(at: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let folder = at.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    let flags = libc::OPEN_TREE_CLONE as i32
        | libc::OPEN_TREE_CLOEXEC as i32
        | libc::AT_RECURSIVE
        | libc::AT_EMPTY_PATH;
    // SAFETY: the string lives through the call; the descriptor is new.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_open_tree, folder, path.as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Puts a detached mount onto the file that `target` is.
pub fn move_mount(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const F_EMPTY_PATH: u32 = 0x4;
    const T_EMPTY_PATH: u32 = 0x40;
    let (from, to) = (tree.as_raw_fd(), target.as_raw_fd());
    // SAFETY: live descriptors and empty strings.
    let result = unsafe {
        libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), F_EMPTY_PATH | T_EMPTY_PATH)
    };
    check(result).map(drop)
}

/// Sets attributes (`MOUNT_ATTR_*`) on the mount that `tree` is, and on those below it when `recursive`.
pub fn set_mount_attributes(tree: BorrowedFd<'_>, attributes: u64, recursive: bool) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let wanted = Attributes { set: attributes, clear: 0, propagation: 0, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the struct is laid out as the kernel's `mount_attr` and lives through the call.
    let result = unsafe {
        let size = size_of::<Attributes>();
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, &wanted, size)
    };
    check(result).map(drop)
}

/// Makes the current folder, which must be a mount, the root, and lets the old one go.
pub fn pivot_root_here() -> io::Result<()> {
    // SAFETY: constant strings. The old root lands on top of the new one and is detached at once.
    unsafe {
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(i64::from(libc::umount2(c".".as_ptr(), libc::MNT_DETACH)))?;
        check(i64::from(libc::chdir(c"/".as_ptr()))).map(drop)
    }
}

/// Sets the host name of this UTS namespace.
pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length belong together.
    check(i64::from(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })).map(drop)
}

/// Becomes another user for good. `groups` is skipped when the namespace forbids it.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the slice lives through the call; raw calls change this (only) thread.
    unsafe {
        let set = check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()));
        if let Err(error) = set
            && error.raw_os_error() != Some(libc::EPERM)
        {
            return Err(error);
        }
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid)).map(drop)
    }
}

/// Sets a resource limit of this process.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the struct lives through the call.
    check(i64::from(unsafe { libc::setrlimit(resource, &limit) })).map(drop)
}

/// Ids of this process.
pub fn ids() -> (u32, u32) {
    // SAFETY: cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Replaces the program; returns only on failure.
pub fn exec(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    // SAFETY: both arrays end with null and their strings live until the program is replaced.
    unsafe { libc::execve(program.as_ptr(), pointers(argv).as_ptr(), pointers(env).as_ptr()) };
    io::Error::last_os_error()
}

/// Seconds and nanoseconds since the epoch.
pub fn now() -> (i64, u32) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() as i64, since.subsec_nanos())
}
