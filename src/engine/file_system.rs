//! What kind of file system a database lies on, and whether WAL can work there.
//!
//! A WAL's index is shared memory. Processes on two machines, or on two sides of a virtual
//! machine's wall, do not share any, whatever their file system promises about locks
//! (<https://sqlite.org/wal.html>, "all processes using a database must be on the same host
//! computer"). `statfs` reports it; only `/proc`'s list of mounts is opened. Any thread.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

use parking_lot::Mutex;

use super::{Error, Result};

/// A file system, as far as SQLite is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Its type: `ext4`, `nfs`, `fuse.sshfs`; a hexadecimal number where it is not a known one.
    pub name: String,
    /// Whether others than this machine's kernel may write to it: a network or cluster file
    /// system, or a folder shared with a virtual machine's host.
    ///
    /// FUSE can be anything. Only the types known to be remote count: an encrypted folder or
    /// `ntfs-3g` is local, and refusing it would have no benefit.
    pub network: bool,
}

impl FileSystem {
    /// The file system of `path`, or of the directory it is to be made in.
    ///
    /// # Errors
    /// Those of `statfs`.
    pub fn of(path: &Path) -> io::Result<Self> {
        match platform::file_system(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                platform::file_system(parent.unwrap_or(Path::new(".")))
            }
            answer => answer,
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.network { "network" } else { "local" };
        write!(f, "{} ({kind})", self.name)
    }
}

/// The file system of `path` in words, for an error that depends on it.
pub fn describe(path: &Path) -> String {
    match FileSystem::of(path) {
        Ok(file_system) => format!("file system {file_system}"),
        Err(error) => format!("file system unknown: {error}"),
    }
}

/// What the system reports of the file system of `path`, from which [`FileSystem`] is derived.
pub(super) fn signs(path: &Path) -> String {
    platform::signs(path).unwrap_or_else(|error| error.to_string())
}

/// The network file system of the open file at `path`, at the first open in this process on its `device`,
/// which is one mount's.
pub fn new_network(path: &Path, device: u64) -> Option<FileSystem> {
    static LOOKED_AT: Devices = Devices(Mutex::new(BTreeSet::new()));
    LOOKED_AT.new_network(device, || FileSystem::of(path))
}

/// The devices whose file system is known.
struct Devices(Mutex<BTreeSet<u64>>);

impl Devices {
    fn new_network(
        &self,
        device: u64,
        look: impl FnOnce() -> io::Result<FileSystem>,
    ) -> Option<FileSystem> {
        let mut devices = self.0.lock();
        if devices.contains(&device) {
            return None;
        }
        // A failed look is repeated at the next open.
        let found = look().ok()?;
        devices.insert(device);
        found.network.then_some(found)
    }
}

/// That `path` is not on a network file system. An unknown file system counts as local.
///
/// # Errors
/// `ERR_FUSION_NETWORK_FS`.
pub(super) fn check_local(path: &Path) -> Result<()> {
    match FileSystem::of(path) {
        Ok(file_system) if file_system.network => Err(Error::fusion(
            "ERR_FUSION_NETWORK_FS",
            format!(
                "the database is on a network file system ({}), where processes on different \
                 machines do not share the WAL's index and corrupt the file. Move it to a local \
                 disk. To open it all the same, because one machine alone uses it, allow network \
                 file systems in the profile",
                file_system.name
            ),
        )
        .at(path)),
        _ => Ok(()),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod platform {
    use super::FileSystem;
    use std::ffi::CString;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    /// `statfs.f_type` (statfs(2), linux/magic.h, and the file systems' own headers), name, and
    /// whether it counts as a network.
    const KNOWN: &[(u32, &str, bool)] = &[
        (0x6969, "nfs", true),
        (0x517B, "smb", true),
        (0xFF53_4D42, "cifs", true),
        (0xFE53_4D42, "smb2", true),
        (0x0102_1997, "9p", true),
        (0x5346_414F, "afs", true),
        (0x6B41_4653, "afs", true),
        (0x00C3_6400, "ceph", true),
        (0x0BD0_0BD0, "lustre", true),
        (0x4750_4653, "gpfs", true),
        (0x1983_0326, "beegfs", true),
        (0xAAD7_AAEA, "panfs", true),
        (0x0131_11A8, "ibrix", true),
        (0xBEEF_DEAD, "snfs", true),
        (0x7375_7245, "coda", true),
        (0x564C, "ncp", true),
        (0x0116_1970, "gfs2", true),
        (0x7461_636F, "ocfs2", true),
        (0x786F_4256, "vboxsf", true),
        (0xBACB_ACBC, "vmhgfs", true),
        (0x7C7C_6673, "prl_fs", true),
        (0xEF53, "ext4", false),
        (0x5846_5342, "xfs", false),
        (0x9123_683E, "btrfs", false),
        (0x0102_1994, "tmpfs", false),
        (0x8584_58F6, "ramfs", false),
        (0x794C_7630, "overlay", false),
        (0x2FC1_2FC1, "zfs", false),
        (0xF2F5_2010, "f2fs", false),
        (0xCA45_1A4E, "bcachefs", false),
        (0x3153_464A, "jfs", false),
        (0x5265_4973, "reiserfs", false),
        (0x7366_746E, "ntfs3", false),
        (0x5346_544E, "ntfs", false),
        (0x4D44, "vfat", false),
        (0x2011_BAB0, "exfat", false),
        (0xF15F, "ecryptfs", false),
        (0x7371_7368, "squashfs", false),
    ];

    const FUSE: u32 = 0x6573_5546;

    /// Types of mounts, `fuse.` left out, whose files others than this kernel write to: the last
    /// group are folders that a virtual machine shares with its host.
    const REMOTE: &[&str] = &[
        "sshfs",
        "rclone",
        "s3fs",
        "gcsfuse",
        "goofys",
        "mount-s3",
        "blobfuse",
        "blobfuse2",
        "glusterfs",
        "ceph",
        "ceph-fuse",
        "davfs",
        "davfs2",
        "curlftpfs",
        "juicefs",
        "moosefs",
        "mfs",
        "lizardfs",
        "seaweedfs",
        "smbnetfs",
        "vmhgfs-fuse",
        "afpfs",
        "hdfs",
        "gvfsd-fuse",
        "nfs4",
        "smb3",
        "virtiofs",
        "fakeowner",
        "grpcfuse",
        "osxfs",
        "prl_fs",
        "v9fs",
    ];

    pub(super) fn file_system(path: &Path) -> io::Result<FileSystem> {
        Ok(named(magic(path)?, type_of(path)))
    }

    pub(super) fn signs(path: &Path) -> io::Result<String> {
        let mounted = type_of(path);
        let mounted = mounted.as_deref().unwrap_or("nothing that is listed");
        Ok(format!("statfs {:#x}, mounted as {mounted}", magic(path)?))
    }

    /// `f_type`'s type differs between C libraries; the magic numbers have 32 bits.
    fn magic(path: &Path) -> io::Result<u32> {
        let c_path = CString::new(path.as_os_str().as_bytes())?;
        let mut stat = MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: the path is NUL-terminated; statfs fills the whole structure when it succeeds,
        // and only then is it read.
        unsafe {
            if libc::statfs(c_path.as_ptr(), stat.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(stat.assume_init().f_type as u32)
        }
    }

    /// The file system with this `f_type` whose mount has this type. Either may say that it is
    /// remote: Docker Desktop's and other virtual machines' folders have a type of their own, and
    /// any magic number.
    fn named(magic: u32, mounted: Option<String>) -> FileSystem {
        let known = KNOWN.iter().find(|(number, ..)| *number == magic);
        let is_remote = mounted.as_deref().is_some_and(|name| {
            let name = name.strip_prefix("fuse.").unwrap_or(name);
            REMOTE.contains(&name)
                || KNOWN.iter().any(|(_, known, remote)| *remote && *known == name)
        });
        let network = is_remote || known.is_some_and(|(.., network)| *network);
        let name = match (known, mounted) {
            (Some((_, name, true)), _) => (*name).to_owned(),
            (_, Some(mounted)) => mounted,
            (Some((_, name, _)), None) => (*name).to_owned(),
            (None, None) if magic == FUSE => "fuse".to_owned(),
            (None, None) => format!("{magic:#x}"),
        };
        FileSystem { name, network }
    }

    /// The type that the mount of `path` was given, which `statfs` does not say.
    fn type_of(path: &Path) -> Option<String> {
        let device = std::fs::metadata(path).ok()?.dev();
        let wanted = format!("{}:{}", libc::major(device), libc::minor(device));
        type_of_mount(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &wanted)
    }

    /// The type of the mount with device `major:minor`, from the text of proc(5)'s `mountinfo`:
    /// the device is the third field, the type the first after the separator `-`.
    fn type_of_mount(mounts: &str, device: &str) -> Option<String> {
        mounts.lines().find_map(|line| {
            if line.split(' ').nth(2) != Some(device) {
                return None;
            }
            let (_, after) = line.split_once(" - ")?;
            after.split(' ').next().map(str::to_owned)
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_fuse_mount_is_a_network_if_its_type_is_remote() {
            let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                          90 22 0:57 / /mnt/a b rw shared:2 master:1 - fuse.sshfs me@host: rw\n\
                          91 22 0:58 / /mnt/c rw - fuseblk /dev/sdb1 rw\n";
            let at = |device| named(FUSE, type_of_mount(mounts, device));
            assert!(at("0:57").network);
            assert_eq!(at("0:57").name, "fuse.sshfs");
            assert!(!at("0:58").network);
            assert_eq!(type_of_mount(mounts, "0:59"), None);
            assert_eq!(at("0:59"), FileSystem { name: "fuse".to_owned(), network: false });
        }

        #[test]
        fn a_folder_of_a_virtual_machines_host_is_a_network_whatever_statfs_says() {
            // The root, a bind mount of Docker Desktop, of older ones, and of OrbStack or Lima.
            let mounts = "\
                700 600 0:110 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/a\n\
                731 700 0:35 /Users/me/app /w rw,relatime - fakeowner /run/host_mark/Users rw,fakeowner\n\
                732 700 0:36 /app /x rw,relatime - fuse.grpcfuse grpcfuse rw,user_id=0\n\
                733 700 0:37 / /y rw,relatime - virtiofs mac rw\n\
                734 700 0:38 / /z rw,relatime - 9p host rw,trans=virtio\n\
                735 700 8:1 / /data rw,relatime - ext4 /dev/sda1 rw\n";
            for (device, magic, network) in [
                ("0:110", 0x794C_7630, false),
                ("0:35", 0x6265_6570, true),
                ("0:36", FUSE, true),
                ("0:37", FUSE, true),
                ("0:38", 1, true),
                ("8:1", 0xEF53, false),
            ] {
                let found = named(magic, type_of_mount(mounts, device));
                assert_eq!(found.network, network, "{device} {found}");
            }
            assert_eq!(named(0x6969, None).name, "nfs");
            assert_eq!(
                named(0x1234, None),
                FileSystem { name: "0x1234".to_owned(), network: false }
            );
        }

        #[test]
        fn a_type_is_listed_once() {
            for (at, (number, ..)) in KNOWN.iter().enumerate() {
                let first = KNOWN.iter().position(|(other, ..)| other == number);
                assert_eq!(first, Some(at), "{number:#x}");
            }
        }
    }
}

#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "openbsd",
    target_os = "dragonfly"
))]
mod platform {
    use super::FileSystem;
    use std::ffi::{CStr, CString};
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    pub(super) fn signs(path: &Path) -> io::Result<String> {
        let FileSystem { name, network } = file_system(path)?;
        let local = if network { "without" } else { "with" };
        Ok(format!("f_fstypename {name}, {local} MNT_LOCAL"))
    }

    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
    pub(super) fn file_system(path: &Path) -> io::Result<FileSystem> {
        let c_path = CString::new(path.as_os_str().as_bytes())?;
        let mut stat = MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: the path is NUL-terminated; statfs fills the whole structure when it succeeds,
        // and only then is it read. The type's name is NUL-terminated.
        unsafe {
            if libc::statfs(c_path.as_ptr(), stat.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let stat = stat.assume_init();
            Ok(FileSystem {
                name: CStr::from_ptr(stat.f_fstypename.as_ptr()).to_string_lossy().into_owned(),
                network: stat.f_flags as u64 & libc::MNT_LOCAL as u64 == 0,
            })
        }
    }
}

#[cfg(windows)]
mod platform {
    use super::FileSystem;
    use std::io;
    use std::os::windows::ffi::OsStrExt;
    use std::path::Path;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetVolumePathNameW(path: *const u16, root: *mut u16, length: u32) -> i32;
        fn GetDriveTypeW(root: *const u16) -> u32;
    }

    const DRIVE_NO_ROOT_DIR: u32 = 1;
    const DRIVE_REMOTE: u32 = 4;
    const LONGEST: u32 = 32_768;

    pub(super) fn signs(path: &Path) -> io::Result<String> {
        drive_type(path).map(|drive| format!("GetDriveType {drive}"))
    }

    pub(super) fn file_system(path: &Path) -> io::Result<FileSystem> {
        let network = drive_type(path)? == DRIVE_REMOTE;
        let name = if network { "remote drive" } else { "drive" };
        Ok(FileSystem { name: name.to_owned(), network })
    }

    fn drive_type(path: &Path) -> io::Result<u32> {
        let wide: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
        let mut root = vec![0_u16; LONGEST as usize];
        // SAFETY: both strings are NUL-terminated and live during the calls; the buffer is as
        // long as it is said to be.
        let drive = unsafe {
            if GetVolumePathNameW(wide.as_ptr(), root.as_mut_ptr(), LONGEST) == 0 {
                return Err(io::Error::last_os_error());
            }
            GetDriveTypeW(root.as_ptr())
        };
        if drive == DRIVE_NO_ROOT_DIR {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(drive)
    }
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "openbsd",
    target_os = "dragonfly",
    windows
)))]
mod platform {
    use super::FileSystem;
    use std::io;
    use std::path::Path;

    pub(super) fn file_system(_: &Path) -> io::Result<FileSystem> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn signs(_: &Path) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, network: bool) -> io::Result<FileSystem> {
        Ok(FileSystem { name: name.to_owned(), network })
    }

    #[test]
    fn a_network_is_reported_once_for_each_mount() {
        let devices = Devices(Mutex::new(BTreeSet::new()));
        let failed = || Err(io::Error::from_raw_os_error(5));
        assert_eq!(devices.new_network(1, failed), None);
        let name = |found: Option<FileSystem>| found.map(|it| it.name);
        assert_eq!(name(devices.new_network(1, || of("nfs", true))).as_deref(), Some("nfs"));
        assert_eq!(devices.new_network(1, || of("nfs", true)), None);
        assert_eq!(devices.new_network(2, || of("ext4", false)), None);
        let virtiofs = devices.new_network(3, || of("virtiofs", true));
        assert_eq!(name(virtiofs).as_deref(), Some("virtiofs"));
    }
}
