//! The eventfds by which threads wake each other.
//!
//! A thread knows another one by the number of a descriptor, as with io_uring, where the kernel refuses
//! a number that is no ring. Here a late wake must not write into whatever file has got the number
//! meanwhile: so a number is looked up here, and a bell is never closed but used again.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, PoisonError, RwLock};

use super::super::super::sys;

/// All bells of the process, and whether each is in use. As many as threads ever had one at a time.
static BELLS: RwLock<Vec<(Arc<File>, bool)>> = RwLock::new(Vec::new());

/// A bell that is ours until it is dropped.
#[derive(Debug)]
pub(super) struct Bell(Arc<File>);

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let mut bells = BELLS.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((file, used)) = bells.iter_mut().find(|(_, used)| !used) {
            *used = true;
            return Ok(Self(Arc::clone(file)));
        }
        let file = Arc::new(File::from(sys::eventfd()?));
        bells.push((Arc::clone(&file), true));
        Ok(Self(file))
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let mut bells = BELLS.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, used)) = bells
            .iter_mut()
            .find(|(file, _)| Arc::ptr_eq(file, &self.0))
        {
            *used = false;
        }
    }
}

/// Rings the bell with this number, if there is one.
pub(super) fn ring(number: RawFd) {
    let bells = BELLS.read().unwrap_or_else(PoisonError::into_inner);
    if let Some((file, _)) = bells.iter().find(|(file, _)| file.as_raw_fd() == number) {
        // Nobody reads the counter: each write is told, and 2^64 of them do not happen.
        let _ = (&**file).write(&1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_bell_is_not_written_to() {
        let (mut reader, writer) = io::pipe().unwrap();
        ring(writer.as_raw_fd());
        drop(writer);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_bell_outlives_its_thread() {
        let bell = Bell::new().unwrap();
        let number = bell.raw_fd();
        drop(bell);
        let path = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        assert_eq!(path.to_string_lossy(), "anon_inode:[eventfd]");
        ring(number);
    }
}
