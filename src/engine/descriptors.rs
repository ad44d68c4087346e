//! The open descriptors of this process, but for those that the caller knows.
//!
//! Listing them (`/proc/self/fd`, `/dev/fd`) takes a microsecond for each one that is open: 10 ms
//! in a process with 1,500 databases, and almost all of them are this package's own. So on Linux
//! `poll` says which of the numbers between the known ones are open, and only what is above the
//! highest known number is listed. Nothing is opened but `/proc`. Any thread.

use std::io;
use std::os::fd::RawFd;

/// Where the process's descriptors are listed.
const LIST: &str = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };

/// A set of descriptors: a bit for each number.
#[derive(Debug, Clone, Default)]
pub(super) struct Descriptors(Vec<u64>);

/// Numbers of one word.
const WORD: usize = 64;

impl Descriptors {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn insert(&mut self, fd: RawFd) {
        let Ok(number) = usize::try_from(fd) else { return };
        if self.0.len() <= number / WORD {
            self.0.resize(number / WORD + 1, 0);
        }
        if let Some(word) = self.0.get_mut(number / WORD) {
            *word |= 1 << (number % WORD);
        }
    }

    pub fn remove(&mut self, fd: RawFd) {
        let Ok(number) = usize::try_from(fd) else { return };
        if let Some(word) = self.0.get_mut(number / WORD) {
            *word &= !(1 << (number % WORD));
        }
    }

    pub fn contains(&self, fd: RawFd) -> bool {
        let word = usize::try_from(fd).ok().and_then(|number| self.0.get(number / WORD));
        word.is_some_and(|word| word & 1 << (fd as usize % WORD) != 0)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The highest number in the set.
    #[cfg(target_os = "linux")]
    fn highest(&self) -> Option<usize> {
        let (index, word) = self.0.iter().enumerate().rfind(|(_, word)| **word != 0)?;
        Some(index * WORD + word.ilog2() as usize)
    }

    /// The numbers below the highest that are not in the set, in order.
    #[cfg(target_os = "linux")]
    fn gaps(&self) -> impl Iterator<Item = usize> {
        let end = self.highest().unwrap_or_default();
        let gaps = self.0.iter().enumerate().flat_map(|(index, word)| {
            std::iter::successors(Some(!word), |rest| Some(rest & rest.wrapping_sub(1)))
                .take_while(|rest| *rest != 0)
                .map(move |rest| index * WORD + rest.trailing_zeros() as usize)
        });
        gaps.take_while(move |number| *number < end)
    }

    pub fn add(&mut self, others: &Self) {
        if self.0.len() < others.0.len() {
            self.0.resize(others.0.len(), 0);
        }
        for (word, other) in self.0.iter_mut().zip(&others.0) {
            *word |= other;
        }
    }
}

/// Whether the process's descriptors can be listed here.
pub(super) fn is_possible() -> bool {
    std::fs::read_dir(LIST).is_ok()
}

/// The descriptors that are open and not among `known`. One that is opened or closed meanwhile may
/// be there or not. One that serves as a path alone (`O_PATH`) may be left out.
///
/// # Errors
/// The system's, where `/proc` or `/dev/fd` is not there.
pub(super) fn others(known: &Descriptors) -> io::Result<Vec<RawFd>> {
    #[cfg(target_os = "linux")]
    if let Some(found) = asked::others(known) {
        return Ok(found);
    }
    let mut found = listed()?;
    found.retain(|fd| !known.contains(*fd));
    Ok(found)
}

fn listed() -> io::Result<Vec<RawFd>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(LIST)? {
        found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    Ok(found)
}

#[cfg(target_os = "linux")]
mod asked {
    use std::ffi::CStr;
    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
    use std::ptr::NonNull;

    use super::Descriptors;

    /// Numbers that are asked about at most: some 20 ns each.
    const MOST: usize = 1 << 16;

    /// Numbers of one call: no more than the process may have descriptors, or the call fails.
    const AT_ONCE: usize = 1024;

    /// None where a plain listing is the quicker way, or the only one.
    pub(super) fn others(known: &Descriptors) -> Option<Vec<RawFd>> {
        let highest = RawFd::try_from(known.highest()?).ok()?;
        let mut found = between(known)?;
        found.extend(above(highest)?);
        Some(found)
    }

    /// Those below the highest known number.
    fn between(known: &Descriptors) -> Option<Vec<RawFd>> {
        let question = |number| {
            RawFd::try_from(number).ok().map(|fd| libc::pollfd { fd, events: 0, revents: 0 })
        };
        let mut questions =
            known.gaps().take(MOST + 1).map(question).collect::<Option<Vec<_>>>()?;
        if questions.len() > MOST {
            return None;
        }
        for questions in questions.chunks_mut(AT_ONCE) {
            ask(questions)?;
        }
        questions.retain(|it| it.revents & libc::POLLNVAL == 0);
        Some(questions.into_iter().map(|it| it.fd).collect())
    }

    fn ask(questions: &mut [libc::pollfd]) -> Option<()> {
        let count = libc::nfds_t::try_from(questions.len()).ok()?;
        loop {
            // SAFETY: reads and writes so many questions, which are borrowed for the call; with
            // no time to wait it blocks on no descriptor.
            if unsafe { libc::poll(questions.as_mut_ptr(), count, 0) } >= 0 {
                return Some(());
            }
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return None;
            }
        }
    }

    /// Those above `highest`: the list is read from there. That its positions are the numbers, and two
    /// more, is the kernel's business, so it is proven each time: the next number is made to be an
    /// open one, and has to come first.
    fn above(highest: RawFd) -> Option<Vec<RawFd>> {
        let first = highest.checked_add(1)?;
        let list = List::open()?;
        // SAFETY: the list's descriptor is open; the command takes a number.
        let mark = unsafe { libc::fcntl(list.descriptor(), libc::F_DUPFD_CLOEXEC, first) };
        if mark < 0 {
            return None;
        }
        // SAFETY: it was just made, and is known to nothing else.
        let mark = unsafe { OwnedFd::from_raw_fd(mark) };
        list.seek(libc::c_long::from(first) + 2);
        let mut found = Vec::new();
        while let Some(fd) = list.next() {
            found.push(fd);
        }
        if found.first() != Some(&first) {
            return None;
        }
        found.retain(|fd| *fd != mark.as_raw_fd() && *fd != list.descriptor());
        Some(found)
    }

    /// `/proc/self/fd`, open.
    struct List(NonNull<libc::DIR>);

    impl List {
        fn open() -> Option<Self> {
            // SAFETY: the path ends with NUL.
            NonNull::new(unsafe { libc::opendir(c"/proc/self/fd".as_ptr()) }).map(Self)
        }

        fn descriptor(&self) -> RawFd {
            // SAFETY: the stream is open as long as `self` is.
            unsafe { libc::dirfd(self.0.as_ptr()) }
        }

        fn seek(&self, position: libc::c_long) {
            // SAFETY: as above.
            unsafe { libc::seekdir(self.0.as_ptr(), position) }
        }

        /// The next number; none at the end, or after a failure.
        fn next(&self) -> Option<RawFd> {
            loop {
                // SAFETY: the stream is open, and this thread's alone. The entry is valid until
                // the next call, and its name ends with NUL.
                let name = unsafe {
                    let entry = libc::readdir64(self.0.as_ptr()).as_ref()?;
                    CStr::from_ptr(entry.d_name.as_ptr())
                };
                // `.` and `..` are in a list from the start.
                if let Some(fd) = name.to_str().ok().and_then(|name| name.parse().ok()) {
                    return Some(fd);
                }
            }
        }
    }

    impl Drop for List {
        fn drop(&mut self) {
            // SAFETY: opened once, closed once.
            unsafe { libc::closedir(self.0.as_ptr()) };
        }
    }

    #[cfg(test)]
    mod tests {
        use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

        use super::Descriptors;

        #[test]
        fn a_set_has_what_was_put_in_and_not_taken_out() {
            let mut set = Descriptors::new();
            for fd in [0, 63, 64, 700] {
                set.insert(fd);
                assert!(set.contains(fd) && !set.contains(fd + 1), "{fd}");
            }
            set.remove(63);
            set.remove(4000);
            let mut other = Descriptors::new();
            other.insert(4000);
            set.add(&other);
            let found: Vec<_> = (0..5000).filter(|fd| set.contains(*fd)).collect();
            assert_eq!((found, set.highest()), (vec![0, 64, 700, 4000], Some(4000)));
            let gaps: Vec<_> = set.gaps().collect();
            let others: Vec<_> = (0..4000_usize).filter(|n| ![0, 64, 700].contains(n)).collect();
            assert_eq!(gaps, others);
            assert!(!set.contains(-1));
            assert_eq!(
                (Descriptors::new().highest(), Descriptors::new().gaps().count()),
                (None, 0)
            );
        }

        #[test]
        fn those_that_are_asked_about_are_those_that_are_listed() {
            let one = std::fs::File::open("/dev/null").unwrap();
            for number in [0, 700, 1023, 1024, 2047, 2048, 2049] {
                // SAFETY: duplicates a descriptor that is open, to a number that is free.
                let far = unsafe { libc::fcntl(one.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
                // SAFETY: it was just made.
                let far = unsafe { OwnedFd::from_raw_fd(far) };
                assert!(super::super::listed().unwrap().contains(&far.as_raw_fd()));
                // Below the highest known number, and above it, next to it and far from it.
                for highest in [one.as_raw_fd(), far.as_raw_fd() - 1, 5000] {
                    let mut known = Descriptors::new();
                    known.insert(one.as_raw_fd());
                    if highest != far.as_raw_fd() {
                        known.insert(highest);
                    }
                    // Other tests open and close files meanwhile: what this one has open counts. The
                    // next number may be closed while the list is read; not every time.
                    let asked =
                        std::iter::repeat_with(|| super::others(&known)).take(100).flatten().next();
                    let asked = asked.expect("Linux lists descriptors by their numbers");
                    assert!(asked.contains(&far.as_raw_fd()), "{number} {highest}");
                    assert!(!asked.contains(&one.as_raw_fd()));
                    assert!(asked.iter().all(|fd| !known.contains(*fd)));
                }
            }
        }
    }
}
