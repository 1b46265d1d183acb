//! Exclusive use of a database's file: an advisory lock on a file beside it, which the system releases when the process ends.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use crate::Error;

/// Exclusive use, as long as it lives.
#[derive(Debug)]
pub(super) struct FileLock {
    /// Never read or written: it is the lock.
    _file: File,
}

impl FileLock {
    /// Takes it or fails at once. The database's path must be canonical, so that every process locks the same file.
    pub(super) fn take(database: &Path) -> Result<Self, Error> {
        // Not the database itself: closing any handle on that would drop SQLite's own locks on it.
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let problem = |error: std::io::Error| Error::Unavailable(format!("{}: {error}", path.display()));
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(problem)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { path: database.display().to_string() }),
            Err(TryLockError::Error(error)) => Err(problem(error)),
        }
    }
}

/// The one path by which every process knows this file, whether it exists yet or not. Makes its folder.
pub(super) fn canonical(database: &Path) -> Result<PathBuf, Error> {
    let problem = |error: std::io::Error| Error::Unavailable(format!("{}: {error}", database.display()));
    if database.exists() {
        return database.canonicalize().map_err(problem);
    }
    let folder = match database.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(problem)?;
    let name = database.file_name().ok_or_else(|| Error::Unusable("database_url: must name a file".to_owned()))?;
    Ok(folder.canonicalize().map_err(problem)?.join(name))
}
