//! A path without symbolic links, as SQLite and people write it: the one place that resolves one.
//!
//! On Windows `std::fs::canonicalize` returns the form for the file system itself (`\\?\C:\a.db`,
//! `\\?\UNC\server\share\a.db`), which no person writes, and which a URI of SQLite's cannot have. It
//! becomes the usual form wherever that means the same file. Any thread.

use std::io;
use std::path::{Path, PathBuf};

/// `path`, which must be there, as an absolute path without symbolic links.
///
/// # Errors
/// The system's.
pub fn canonicalize(path: &Path) -> io::Result<PathBuf> {
    let resolved = std::fs::canonicalize(path)?;
    if cfg!(windows) {
        let usual = resolved.to_str().and_then(usual_form).map(PathBuf::from);
        return Ok(usual.unwrap_or(resolved));
    }
    Ok(resolved)
}

/// The longest path, in UTF-16 units with its end, that every Windows program can open in its usual form (`MAX_PATH`).
const LONGEST: usize = 260;

/// The usual form of a path of Windows that begins with `\\?\`; `None` without one, or where the
/// usual form is too long or means another file.
fn usual_form(path: &str) -> Option<String> {
    let rest = path.strip_prefix(r"\\?\")?;
    let (usual, names) = if let Some(share) = rest.strip_prefix(r"UNC\") {
        (format!(r"\\{share}"), share)
    } else {
        let [drive, b':', b'\\', ..] = rest.as_bytes() else { return None };
        if !drive.is_ascii_alphabetic() {
            return None;
        }
        (rest.to_owned(), rest.get(3..)?)
    };
    let is_short = usual.encode_utf16().count() < LONGEST;
    let keeps_meaning = names.trim_end_matches('\\').split('\\').all(is_usual_name);
    (is_short && (keeps_meaning || names.is_empty())).then_some(usual)
}

/// Whether Windows takes this name of a file or folder as it is: without an end that it cuts off, and
/// no name of a device.
fn is_usual_name(name: &str) -> bool {
    const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ');
    let stem = stem.to_ascii_uppercase();
    let is_numbered = ["COM", "LPT"].iter().any(|device| {
        // The superscript digits count as well.
        let number = stem.strip_prefix(device).and_then(|rest| rest.parse::<char>().ok());
        number.is_some_and(|it| it.is_ascii_digit() || "¹²³".contains(it))
    });
    !name.is_empty()
        && !name.contains('/')
        && !name.ends_with(['.', ' '])
        && !DEVICES.contains(&stem.as_str())
        && !is_numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_windows_has_its_usual_form() {
        for (given, usual) in [
            (r"\\?\C:\Users\me\app.db", r"C:\Users\me\app.db"),
            (r"\\?\c:\ä b\app.db-wal", r"c:\ä b\app.db-wal"),
            (r"\\?\C:\", r"C:\"),
            (r"\\?\UNC\server\share\app.db", r"\\server\share\app.db"),
            (r"\\?\UNC\server\share\", r"\\server\share\"),
            (r"\\?\C:\.git\.x.partial-1-0\COM", r"C:\.git\.x.partial-1-0\COM"),
        ] {
            assert_eq!(usual_form(given).as_deref(), Some(usual), "{given}");
        }
    }

    #[test]
    fn a_path_whose_usual_form_is_another_file_stays() {
        let long = format!(r"\\?\C:\{}", "a".repeat(257));
        for given in [
            r"C:\app.db",
            r"\\server\share\app.db",
            r"\\?\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\app.db",
            r"\\?\C:app.db",
            r"\\?\C:\app.db.",
            r"\\?\C:\folder \app.db",
            r"\\?\C:\..\app.db",
            r"\\?\C:\a/b",
            r"\\?\C:\a\\b",
            r"\\?\C:\nul",
            r"\\?\C:\Con.db",
            r"\\?\C:\com1.db",
            r"\\?\C:\LPT³",
            r"\\?\UNC\server\share\aux .db",
            r"\\?\",
            long.as_str(),
        ] {
            assert_eq!(usual_form(given), None, "{given}");
        }
        let longest = format!(r"\\?\C:\{}", "a".repeat(256));
        assert_eq!(usual_form(&longest).map(|it| it.len()), Some(259));
    }

    #[test]
    fn a_path_is_resolved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        assert_eq!(canonicalize(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, "").unwrap();
        let resolved = canonicalize(&folder.path().join(".").join("a.db")).unwrap();
        assert!(resolved.is_absolute() && !resolved.to_string_lossy().contains(r"\\?\"));
        assert_eq!(canonicalize(&resolved).unwrap(), resolved);
    }
}
