//! A shared library, opened at run time.
//!
//! Libraries stay open for the life of the process: both engines start threads that end when the process does, and
//! closing a library under them is how processes crash at their end.

#![allow(unsafe_code)] // `dlopen` and `dlsym` are foreign functions; each block says why it is sound.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use crate::error::Error;

/// An open library.
#[derive(Debug)]
pub(crate) struct Library {
    handle: NonNull<c_void>,
    path: PathBuf,
}

// SAFETY: the handle is only handed to `dlsym`, which may be called from any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Opens the file with everything that it needs. Its symbols stay its own.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |why: String| Error::Open { path: path.to_owned(), why };
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(error.to_string()))?;
        // SAFETY: the name is a C string. Opening runs the library's initialisers: the operator chose it by name or by
        // installing it, and its file is not writable by models or requests.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        match NonNull::new(handle) {
            Some(handle) => Ok(Self { handle, path: path.to_owned() }),
            None => Err(failed(last_error())),
        }
    }

    /// The address of a symbol, never null.
    pub(crate) fn symbol(&self, name: &CStr) -> Result<*mut c_void, Error> {
        // SAFETY: the handle is an open library's, the name a C string.
        let address = unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr()) };
        if address.is_null() {
            let why = format!("it has no symbol {}", name.to_string_lossy());
            return Err(Error::Open { path: self.path.clone(), why });
        }
        Ok(address)
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// What the linker says of its last failure on this thread.
fn last_error() -> String {
    // SAFETY: without arguments; the text, where there is one, lives until the thread's next call of the linker.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            "unknown error".into()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_is_refused_with_the_linkers_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("libnothing.so");
        for text in [None, Some("no library")] {
            if let Some(text) = text {
                std::fs::write(&path, text).expect("written");
            }
            let error = Library::open(&path).expect_err("no library").to_string();
            assert!(error.contains("libnothing.so") && error.len() > path.as_os_str().len() + 20, "{error}");
        }
    }

    #[test]
    fn symbols_are_found_by_name() {
        let library = Library::open(Path::new("libc.so.6")).expect("the C library");
        assert!(library.symbol(c"malloc").is_ok());
        let error = library.symbol(c"no_such_symbol").expect_err("absent").to_string();
        assert!(error.contains("no_such_symbol") && error.contains("libc.so.6"), "{error}");
    }
}
