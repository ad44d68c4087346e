//! The open descriptors of this process, but for those that the caller knows.
//!
//! Listing them (`/proc/self/fd`, `/dev/fd`) takes a microsecond for each one that is open: 10 ms
//! in a process with 1,500 databases, and almost all of them are this package's own. So Linux is
//! asked of the others alone: `poll` says which numbers are open, thousands at a time, and the
//! kernel says how far the numbers go (`FDSize`). Nothing is opened but `/proc`. Any thread.

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

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
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
    use std::io;
    use std::os::fd::RawFd;

    use super::Descriptors;

    /// Numbers that are asked about at most: some 20 ns each.
    const MOST: usize = 1 << 16;

    /// Numbers of one call: no more than the process may have descriptors, or the call fails.
    const AT_ONCE: usize = 1024;

    /// None where the kernel does not say how far the numbers go, or listing is the quicker way.
    pub(super) fn others(known: &Descriptors) -> Option<Vec<RawFd>> {
        let size = table_size()?;
        if usize::try_from(size).ok()?.saturating_sub(known.len()) > MOST {
            return None;
        }
        let mut questions = Vec::with_capacity(AT_ONCE);
        let mut found = Vec::new();
        for fd in 0..size {
            if !known.contains(fd) {
                questions.push(libc::pollfd { fd, events: 0, revents: 0 });
            }
            if questions.len() == AT_ONCE || fd + 1 == size {
                ask(&mut questions)?;
                let open = questions.drain(..).filter(|it| it.revents & libc::POLLNVAL == 0);
                found.extend(open.map(|it| it.fd));
            }
        }
        Some(found)
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

    /// A number that no open descriptor reaches.
    fn table_size() -> Option<RawFd> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        status.lines().find_map(|line| line.strip_prefix("FDSize:"))?.trim().parse().ok()
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
            assert_eq!((found, set.len()), (vec![0, 64, 700, 4000], 4));
            assert!(!set.contains(-1));
        }

        #[test]
        fn those_that_are_asked_about_are_those_that_are_listed() {
            let one = std::fs::File::open("/dev/null").unwrap();
            for number in [0, 700, 1023, 1024, 2047, 2048, 2049] {
                // SAFETY: duplicates a descriptor that is open, to a number that is free.
                let far = unsafe { libc::fcntl(one.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
                // SAFETY: it was just made.
                let far = unsafe { OwnedFd::from_raw_fd(far) };
                let mut known = Descriptors::new();
                known.insert(one.as_raw_fd());
                // Other tests open and close files meanwhile: what this one has open counts.
                let asked = super::others(&known).unwrap();
                assert!(asked.contains(&far.as_raw_fd()), "{number}");
                assert!(!asked.contains(&one.as_raw_fd()));
                assert!(super::super::listed().unwrap().contains(&far.as_raw_fd()));
            }
        }
    }
}
