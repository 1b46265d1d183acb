//! What all SQLite databases have in common: how a URL names their file, how their clock is read, how a statement takes many rows.

pub mod lists;

use std::path::PathBuf;

/// The clock of a SQLite database at a statement, as an SQL expression: microseconds, which tick in milliseconds and stand still
/// within one statement. A literal, so that `concat!` can put it into a statement.
#[macro_export]
macro_rules! sqlite_now {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000"
    };
}

/// The file that `sqlite:` and `sqlite://` URLs name. Open it as a file name, not by the URL: what this refuses, and much that
/// SQLite and its drivers would make of the rest of a URL, is a database that forgets.
///
/// # Errors
/// What is wrong with the URL: it names another database, no file, or a database that is only in memory, or it has parameters or
/// escapes. Nothing of the URL is repeated, since it may have a password in it.
pub fn path_of(url: &str) -> Result<PathBuf, &'static str> {
    let Some(rest) = url.strip_prefix("sqlite:") else {
        return Err("must begin with `sqlite:` (`sqlite://data/name.db`)");
    };
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    if path == ":memory:" || parameters.contains("mode=memory") {
        return Err("must name a file: what is only in memory does not outlive the process");
    }
    match parameters {
        "" | "mode=rwc" | "mode=rw" => {}
        _ => return Err("takes no parameters"),
    }
    if path.is_empty() || path.ends_with('/') {
        return Err("must name a file (`sqlite://data/name.db`)");
    }
    // SQLite would read such a name as a URL of its own, parameters, memory and all.
    if path.starts_with("file:") {
        return Err("must name a file without `file:` (`sqlite://data/name.db`)");
    }
    if path.contains('%') {
        return Err("takes no %-escapes: write the file's path as it is");
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file() {
        for (url, path) in [
            ("sqlite://data/log.db", "data/log.db"),
            ("sqlite:log.db", "log.db"),
            ("sqlite:///var/lib/log.db?mode=rwc", "/var/lib/log.db"),
        ] {
            assert_eq!(path_of(url), Ok(PathBuf::from(path)), "{url}");
        }
    }

    #[test]
    fn a_database_in_memory_is_refused() {
        for url in ["sqlite::memory:", "sqlite://:memory:", "sqlite://x?mode=memory", "sqlite://x?mode=rwc&mode=memory"] {
            assert!(path_of(url).is_err_and(|problem| problem.contains("memory")), "{url}");
        }
    }

    #[test]
    fn urls_of_anything_else_are_refused() {
        for url in [
            "",
            "postgres://localhost/log",
            "sqlite:",
            "sqlite://",
            "sqlite://?mode=rwc",
            "sqlite://data/",
            "sqlite://x?immutable=1",
            "sqlite://%3Amemory%3A",
            "sqlite:file::memory:",
            "sqlite://file:x.db",
        ] {
            assert!(path_of(url).is_err(), "{url}");
        }
    }
}
