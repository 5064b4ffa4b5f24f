//! The files of receipts: one that is written, and the one before it; together they keep to the bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;
use zen_hmac::PreparedKey;

/// The file that is written.
const NEWEST: &str = "receipts.jsonl";
/// The one before it.
const OLDER: &str = "receipts.1.jsonl";
/// The secret of the hashes.
const KEY: &str = "hmac.key";
const KEY_BYTES: usize = 32;
const MODE: u32 = 0o600;
/// Longest line that is read, bytes.
const LINE_BYTES_MAX: u64 = 4096;

/// Appends lines.
pub struct Receiver {
    directory: PathBuf,
    file: File,
    bytes: u64,
    file_bytes_max: u64,
}

impl Receiver {
    /// Goes on with the file that is there; a torn last line is ended.
    pub fn open(directory: &Path, bytes_max: u64) -> io::Result<Self> {
        let mut file = append_to(&directory.join(NEWEST))?;
        let mut bytes = file.metadata()?.len();
        if bytes > 0 {
            let mut last = [0];
            File::open(directory.join(NEWEST))?.read_exact_at(&mut last, bytes - 1)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                bytes += 1;
            }
        }
        Ok(Self { directory: directory.to_owned(), file, bytes, file_bytes_max: bytes_max / 2 })
    }

    /// Appends a line; the file before the last goes when this one is full.
    pub fn append(&mut self, line: &str) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.file_bytes_max {
            self.file.sync_data()?;
            fs::rename(self.directory.join(NEWEST), self.directory.join(OLDER))?;
            self.file = append_to(&self.directory.join(NEWEST))?;
            File::open(&self.directory)?.sync_all()?;
            self.bytes = 0;
        }
        let written = self.file.write_all(line.as_bytes());
        if written.is_err() {
            // Half a line must not run into the next.
            let _ = self.file.set_len(self.bytes);
            return written;
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// What was appended is on disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The receipts that `is_wanted` takes, oldest first; lines that cannot be read are left out.
pub fn scan(directory: &Path, mut is_wanted: impl FnMut(&Value) -> bool) -> io::Result<Vec<Value>> {
    let mut found = Vec::new();
    for name in [OLDER, NEWEST] {
        let file = match File::open(directory.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let (mut file, mut line) = (BufReader::new(file), Vec::new());
        // What is longer than any receipt comes in pieces, and no piece can be read.
        while file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? > 0 {
            found.extend(serde_json::from_slice(&line).ok().filter(&mut is_wanted));
            line.clear();
        }
    }
    Ok(found)
}

/// The secret of the hashes, made once.
pub fn load_key(directory: &Path) -> io::Result<PreparedKey> {
    let path = directory.join(KEY);
    if !path.exists() {
        let mut secret = [0; KEY_BYTES];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let building = path.with_extension("tmp");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&building)?;
        file.write_all(&secret)?;
        file.sync_all()?;
        fs::rename(&building, &path)?;
        File::open(directory)?.sync_all()?;
    }
    if fs::metadata(&path)?.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{0} lets others read it; chmod 0600 {0}", path.display())));
    }
    let secret = fs::read(&path)?;
    if secret.len() != KEY_BYTES {
        return Err(io::Error::other(format!(
            "{} does not hold {KEY_BYTES} bytes; restore it",
            path.display()
        )));
    }
    Ok(PreparedKey::new(&secret))
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> String {
        format!("{{\"number\":{number:04}}}\n").replace(":000", ":1")
    }

    #[test]
    fn two_files_keep_to_the_bound_and_hold_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = Receiver::open(directory.path(), 200).unwrap();
        for number in 0..10 {
            file.append(&line(number)).unwrap();
            let sizes = [NEWEST, OLDER].map(|name| fs::metadata(directory.path().join(name)));
            let bytes: u64 = sizes.into_iter().flatten().map(|metadata| metadata.len()).sum();
            assert!(bytes <= 200, "{bytes}");
        }
        let found = scan(directory.path(), |_| true).unwrap();
        let numbers: Vec<u64> = found.iter().map(|receipt| receipt["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers.last(), Some(&19));
        assert!(numbers.len() >= 6 && numbers.is_sorted(), "{numbers:?}");
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = Receiver::open(directory.path(), 1 << 20).unwrap();
        file.append(&line(1)).unwrap();
        file.append("{\"torn\":").unwrap();
        let mut file = Receiver::open(directory.path(), 1 << 20).unwrap();
        file.append(&line(2)).unwrap();
        file.sync().unwrap();
        assert_eq!(scan(directory.path(), |_| true).unwrap().len(), 2);
    }

    #[test]
    fn the_key_stays_and_is_nobody_else_s() {
        let directory = tempfile::tempdir().unwrap();
        let tag = |key: PreparedKey| key.sign(&[b"body"])[0];
        let first = tag(load_key(directory.path()).unwrap());
        assert_eq!(first, tag(load_key(directory.path()).unwrap()));
        let path = directory.path().join(KEY);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load_key(directory.path()).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"short").unwrap();
        assert!(load_key(directory.path()).is_err());
    }
}
