//! Where the servers' binaries are, and what to say if they are nowhere.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::Kind;

/// The binaries of one database, as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binaries {
    /// `postgres` or `mariadbd`.
    pub(crate) server: PathBuf,
    /// `initdb` or `mariadb-install-db`.
    pub(crate) install: PathBuf,
}

/// A server is not installed here.
#[derive(Debug, thiserror::Error)]
#[error(
    "{kind}'s server binaries ({names}) are in none of PATH, {places}. Run `tests/setup.sh`, or install them: {packages}",
    names = .kind.names().join(" and "),
    places = .kind.places().join(", "),
    packages = .kind.packages()
)]
#[non_exhaustive]
pub struct NotInstalled {
    /// Which.
    pub kind: Kind,
}

impl Kind {
    const fn names(self) -> [&'static str; 2] {
        match self {
            Self::Postgres => ["postgres", "initdb"],
            Self::Mysql => ["mariadbd", "mariadb-install-db"],
        }
    }

    /// Beside PATH; `*` stands for a version, of which the newest is taken.
    const fn places(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &[
                "/usr/lib/postgresql/*/bin",
                "/usr/pgsql-*/bin",
                "/opt/homebrew/opt/postgresql@*/bin",
                "/usr/local/opt/postgresql@*/bin",
                "/usr/local/pgsql/bin",
            ],
            Self::Mysql => &[
                "/usr/sbin",
                "/usr/libexec",
                "/usr/bin",
                "/usr/local/sbin",
                "/opt/homebrew/opt/mariadb/bin",
                "/usr/local/opt/mariadb/bin",
                "/usr/local/mysql/bin",
            ],
        }
    }

    const fn packages(self) -> &'static str {
        match self {
            Self::Postgres => {
                "`apt-get install postgresql`, `dnf install postgresql-server`, `pacman -S postgresql` or \
                 `brew install postgresql@17`"
            }
            Self::Mysql => {
                "`apt-get install mariadb-server-core mariadb-client-core`, `dnf install mariadb-server`, `pacman -S mariadb` or \
                 `brew install mariadb`"
            }
        }
    }
}

/// Looks for a database's binaries.
pub(crate) fn binaries(kind: Kind) -> Result<Binaries, NotInstalled> {
    let in_path = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let elsewhere = kind.places().iter().flat_map(|place| newest_first(place));
    in_folders(kind, in_path.into_iter().chain(elsewhere)).ok_or(NotInstalled { kind })
}

/// Both from the same folder where it has both: versions must not be mixed.
fn in_folders(kind: Kind, folders: impl Iterator<Item = PathBuf>) -> Option<Binaries> {
    let folders: Vec<PathBuf> = folders.collect();
    let [server, install] = kind.names();
    let both = folders.iter().find(|folder| folder.join(server).is_file() && folder.join(install).is_file());
    if let Some(folder) = both {
        return Some(Binaries { server: folder.join(server), install: folder.join(install) });
    }
    let first = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
    Some(Binaries { server: first(server)?, install: first(install)? })
}

fn newest_first(place: &str) -> Vec<PathBuf> {
    let Some((before, after)) = place.split_once('*') else { return vec![PathBuf::from(place)] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let entries = std::fs::read_dir(Path::new(parent)).into_iter().flatten().flatten();
    let mut versions: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?.split('.').next()?.parse().ok()?;
            Some((version, PathBuf::from(format!("{}{after}", entry.path().display()))))
        })
        .collect();
    versions.sort_by(|one, other| other.cmp(one));
    versions.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first_by_number() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        for version in ["9", "17", "15", "notes"] {
            std::fs::create_dir_all(folder.path().join(version).join("bin"))?;
        }
        let place = format!("{}/*/bin", folder.path().display());
        let found: Vec<PathBuf> = newest_first(&place);
        let expected: Vec<PathBuf> = ["17", "15", "9"].map(|version| folder.path().join(version).join("bin")).into();
        assert_eq!(found, expected);
        Ok(())
    }

    #[test]
    fn binaries_of_one_folder_are_not_mixed_with_those_of_another() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (half, whole) = (folder.path().join("half"), folder.path().join("whole"));
        for (at, name) in [(&half, "postgres"), (&whole, "postgres"), (&whole, "initdb")] {
            std::fs::create_dir_all(at)?;
            std::fs::write(at.join(name), "")?;
        }
        let found = in_folders(Kind::Postgres, [half.clone(), whole.clone()].into_iter());
        assert_eq!(found, Some(Binaries { server: whole.join("postgres"), install: whole.join("initdb") }));
        assert_eq!(in_folders(Kind::Postgres, [half].into_iter()), None);
        Ok(())
    }

    #[test]
    fn what_is_missing_is_said_with_the_command_that_installs_it() {
        let said = NotInstalled { kind: Kind::Mysql }.to_string();
        for part in ["mariadbd and mariadb-install-db", "/usr/sbin", "tests/setup.sh", "apt-get install mariadb-server-core"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
