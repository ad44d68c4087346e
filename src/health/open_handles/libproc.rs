//! Which processes have files open on macOS, by libproc (bsd/sys/proc_info.h): the descriptors of each
//! process, and device and inode of each that is a file. No file is opened, and no right is needed
//! for processes of the same user (`proc_security_policy`). Locks are not reported.
//!
//! What is asked is [`Libproc`]; what follows from the answers is computed here, on any system. Any
//! thread.

use std::io;

use super::{FileId, Holder, Holders, Role, unseen};

/// The calls, with the kernel's structures as bytes.
pub(super) trait Libproc {
    /// The numbers of all processes.
    fn processes(&self) -> io::Result<Vec<i32>>;
    /// `proc_fdinfo` of each descriptor (`PROC_PIDLISTFDS`).
    fn descriptors(&self, pid: i32) -> io::Result<Vec<u8>>;
    /// `vnode_fdinfowithpath` of one (`PROC_PIDFDVNODEPATHINFO`); none where it has been closed.
    fn vnode(&self, pid: i32, descriptor: i32) -> Option<Vec<u8>>;
    /// What the process runs; empty where it has ended.
    fn command(&self, pid: i32) -> String;
}

/// Bytes of a `proc_fdinfo`: the descriptor and its type.
const DESCRIPTOR: usize = 8;

/// The type of a descriptor that is a file, folder or device (`PROX_FDTYPE_VNODE`).
const VNODE: u32 = 1;

/// Bytes of a `vnode_fdinfowithpath`: `proc_fileinfo` (24), `vnode_info` (152), the path (1024).
pub(super) const VNODE_INFO: usize = 1200;

/// Where `vst_dev` and `vst_ino` are in it.
const DEVICE: usize = 24;
const INODE: usize = 32;

/// `EPERM`.
const NOT_PERMITTED: i32 = 1;

/// Who has `files` open. `own` is the number of this process.
pub(super) fn holders(libproc: &impl Libproc, files: &[(Role, FileId)], own: u32) -> Holders {
    let all = match libproc.processes() {
        Ok(all) => all,
        Err(error) => {
            let unknown = Some(format!("the system does not list its processes: {error}"));
            return Holders { processes: None, locks: None, unknown };
        }
    };
    let (mut processes, mut refused) = (Vec::new(), 0_u32);
    for pid in all {
        // 0 is the kernel's, and fills what is left of the list.
        let Some(number) = u32::try_from(pid).ok().filter(|number| *number > 0) else { continue };
        match libproc.descriptors(pid) {
            Ok(list) => {
                let mut open: Vec<Role> = vnodes(&list)
                    .filter_map(|descriptor| identity(&libproc.vnode(pid, descriptor)?))
                    .filter_map(|id| files.iter().find(|(_, file)| *file == id))
                    .map(|(role, _)| *role)
                    .collect();
                open.sort_unstable();
                open.dedup();
                if !open.is_empty() {
                    let command = libproc.command(pid);
                    let this_process = number == own;
                    processes.push(Holder { pid: number, command, this_process, files: open });
                }
            }
            Err(error) if error.raw_os_error() == Some(NOT_PERMITTED) => refused += 1,
            // It has ended meanwhile.
            Err(_) => {}
        }
    }
    processes.sort_by_key(|process| process.pid);
    processes.dedup_by_key(|process| process.pid);
    Holders { processes: Some(processes), locks: None, unknown: unseen(refused) }
}

/// The descriptors of a list of `proc_fdinfo` that are files.
fn vnodes(list: &[u8]) -> impl Iterator<Item = i32> {
    list.chunks_exact(DESCRIPTOR).filter_map(|entry| {
        let kind = u32::from_ne_bytes(*entry.get(4..)?.first_chunk()?);
        (kind == VNODE).then_some(i32::from_ne_bytes(*entry.first_chunk()?))
    })
}

/// The file that a `vnode_fdinfowithpath` is of, as `stat` identifies it.
fn identity(answer: &[u8]) -> Option<FileId> {
    let device = i32::from_ne_bytes(*answer.get(DEVICE..)?.first_chunk()?);
    let inode = u64::from_ne_bytes(*answer.get(INODE..)?.first_chunk()?);
    // A `dev_t` has a sign there, which `MetadataExt::dev` extends.
    #[allow(clippy::cast_sign_loss, reason = "as MetadataExt::dev does")]
    let device = i64::from(device) as u64;
    Some(FileId { device, inode, upper: 0 })
}

#[cfg(target_os = "macos")]
pub(super) mod system {
    use std::ffi::c_int;
    use std::io;

    use super::{DESCRIPTOR, Libproc, VNODE_INFO};

    /// The kernel's own answers.
    pub(in super::super) struct System;

    const PROC_ALL_PIDS: u32 = 1;
    const PROC_PIDFDVNODEPATHINFO: c_int = 2;

    impl Libproc for System {
        fn processes(&self) -> io::Result<Vec<i32>> {
            let list = filled(size_of::<i32>(), |buffer, size| {
                // SAFETY: the buffer is null, which asks for the size, or has `size` bytes.
                unsafe { libc::proc_listpids(PROC_ALL_PIDS, 0, buffer.cast(), size) }
            })?;
            let numbers = list.chunks_exact(size_of::<i32>());
            Ok(numbers.filter_map(|it| Some(i32::from_ne_bytes(*it.first_chunk()?))).collect())
        }

        fn descriptors(&self, pid: i32) -> io::Result<Vec<u8>> {
            filled(DESCRIPTOR, |buffer, size| {
                // SAFETY: the buffer is null, which asks for the size, or has `size` bytes.
                unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDLISTFDS, 0, buffer.cast(), size) }
            })
        }

        fn vnode(&self, pid: i32, descriptor: i32) -> Option<Vec<u8>> {
            let mut answer = vec![0_u8; VNODE_INFO];
            // SAFETY: the buffer has as many bytes as it is said to have.
            let length = unsafe {
                let buffer = answer.as_mut_ptr().cast();
                let size = VNODE_INFO as c_int;
                libc::proc_pidfdinfo(pid, descriptor, PROC_PIDFDVNODEPATHINFO, buffer, size)
            };
            (usize::try_from(length) == Ok(VNODE_INFO)).then_some(answer)
        }

        fn command(&self, pid: i32) -> String {
            let mut path = vec![0_u8; libc::PROC_PIDPATHINFO_MAXSIZE as usize];
            // SAFETY: the buffer has as many bytes as it is said to have.
            let length = unsafe {
                let size = libc::PROC_PIDPATHINFO_MAXSIZE as u32;
                libc::proc_pidpath(pid, path.as_mut_ptr().cast(), size)
            };
            path.truncate(usize::try_from(length).unwrap_or(0));
            String::from_utf8_lossy(&path).into_owned()
        }
    }

    /// A list of entries of so many bytes, which `call` writes into a buffer. It may grow between the
    /// question for its size and the one for its content: a list that fills the buffer may be cut.
    fn filled(entry: usize, call: impl Fn(*mut u8, c_int) -> c_int) -> io::Result<Vec<u8>> {
        const SPARE: usize = 32;
        let mut size = usize::try_from(asked(|| call(std::ptr::null_mut(), 0))?).unwrap_or(0);
        loop {
            size = size.saturating_add(SPARE * entry);
            let mut list = vec![0_u8; size];
            let length = c_int::try_from(size).map_err(io::Error::other)?;
            let used = asked(|| call(list.as_mut_ptr(), length))?;
            let used = usize::try_from(used).unwrap_or(0);
            if used < size {
                list.truncate(used);
                return Ok(list);
            }
            size = size.saturating_mul(2);
        }
    }

    /// libproc's answer: 0 or less is an error if the system says so, else nothing was found.
    fn asked(call: impl FnOnce() -> c_int) -> io::Result<c_int> {
        // SAFETY: the pointer is this thread's own number.
        unsafe { *libc::__error() = 0 };
        let answer = call();
        let error = io::Error::last_os_error();
        if answer <= 0 && error.raw_os_error() != Some(0) { Err(error) } else { Ok(answer) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A system with these processes: the descriptors' types and what they are of, or the error.
    #[derive(Default)]
    struct Fake(HashMap<i32, Result<Vec<(u32, FileId)>, i32>>);

    impl Libproc for Fake {
        fn processes(&self) -> io::Result<Vec<i32>> {
            if self.0.is_empty() {
                return Err(io::Error::from_raw_os_error(12));
            }
            Ok(self.0.keys().copied().chain([0, -1]).collect())
        }

        fn descriptors(&self, pid: i32) -> io::Result<Vec<u8>> {
            let open = self.0[&pid].as_ref().map_err(|code| io::Error::from_raw_os_error(*code))?;
            let entries = (3_i32..).zip(open).flat_map(|(descriptor, (kind, _))| {
                [descriptor.to_ne_bytes(), kind.to_ne_bytes()].concat()
            });
            Ok(entries.collect())
        }

        fn vnode(&self, pid: i32, descriptor: i32) -> Option<Vec<u8>> {
            let open = self.0[&pid].as_ref().ok()?;
            let (kind, id) = open.get(usize::try_from(descriptor).ok()?.checked_sub(3)?)?;
            assert_eq!(*kind, VNODE, "a socket is no file");
            let mut answer = vec![0xAA; VNODE_INFO];
            answer[DEVICE..DEVICE + 4].copy_from_slice(&(id.device as u32).to_ne_bytes());
            answer[INODE..INODE + 8].copy_from_slice(&id.inode.to_ne_bytes());
            // Closed meanwhile.
            (id.inode != 0).then_some(answer)
        }

        fn command(&self, pid: i32) -> String {
            format!("/bin/p{pid}")
        }
    }

    fn id(device: i32, inode: u64) -> FileId {
        FileId { device: i64::from(device) as u64, inode, upper: 0 }
    }

    #[test]
    fn processes_are_found_by_the_files_that_are_open_there() {
        const SOCKET: u32 = 2;
        let files = [(Role::Database, id(16_777_220, 5)), (Role::Wal, id(16_777_220, 6))];
        let system = Fake(HashMap::from([
            (40, Ok(vec![(VNODE, files[1].1), (VNODE, files[0].1), (VNODE, files[0].1)])),
            (7, Ok(vec![(SOCKET, files[0].1), (VNODE, id(16_777_220, 0)), (VNODE, files[0].1)])),
            // The same inode of another device, a socket, and nothing.
            (8, Ok(vec![(VNODE, id(1, 5)), (SOCKET, files[0].1)])),
            (9, Ok(Vec::new())),
            (10, Err(1)),
            (11, Err(1)),
            (12, Err(3)),
        ]));
        let found = holders(&system, &files, 7);
        let holder = |pid, this_process, files| Holder {
            pid,
            command: format!("/bin/p{pid}"),
            this_process,
            files,
        };
        assert_eq!(
            found.processes.unwrap(),
            [
                holder(7, true, vec![Role::Database]),
                holder(40, false, vec![Role::Database, Role::Wal]),
            ]
        );
        assert_eq!(found.locks, None);
        assert!(found.unknown.unwrap().starts_with("2 processes of other users"));
    }

    #[test]
    fn a_device_number_with_a_sign_is_that_of_stat() {
        let negative = id(-16_777_216, 5);
        let system = Fake(HashMap::from([(1, Ok(vec![(VNODE, negative)]))]));
        let found = holders(&system, &[(Role::Database, negative)], 7);
        assert_eq!(found.processes.unwrap().len(), 1);
        assert_eq!(found.unknown, None);
        assert_eq!(identity(&[0; INODE + 7]), None);
    }

    #[test]
    fn a_list_that_cannot_be_had_is_unknown_not_empty() {
        let found = holders(&Fake::default(), &[], 7);
        assert!(found.processes.is_none() && found.unknown.is_some());
    }
}
