//! How each server is installed and started. What makes commits durable stays on; memory is small; and what a careless program
//! leaves to the server's defaults (isolation, time zone, strictness) is set to what such a program would not expect.

use std::path::Path;

use super::{Kind, find::Binaries};

/// The user in every URL.
pub const USER: &str = "tcc";
/// The password in every URL, so that tests can look for it where it must not be.
pub const PASSWORD: &str = "not-for-logs-7c1f";

const CONNECTIONS_MAX: u32 = 200;
const POSTGRES: [&str; 10] = [
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "shared_buffers=64MB",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    // In the data folder, so that a killed server leaves nothing in /dev/shm.
    "dynamic_shared_memory_type=mmap",
    "default_transaction_isolation=repeatable read",
    "timezone=<+05:30>-05:30",
    "log_timezone=UTC",
];
const MARIADB: [&str; 11] = [
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-doublewrite=1",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=64M",
    "--skip-log-bin",
    "--skip-name-resolve",
    "--bind-address=127.0.0.1",
    // Within the data folder: a whole path may be longer than a socket's name can be.
    "--socket=socket",
    "--transaction-isolation=REPEATABLE-READ",
    "--default-time-zone=+05:30",
    "--sql-mode=",
];

impl Kind {
    /// The arguments of `initdb` or `mariadb-install-db`.
    pub(crate) fn install_arguments(self, data: &Path) -> Vec<String> {
        let data = data.display();
        match self {
            Self::Postgres => vec![
                format!("--pgdata={data}"),
                format!("--username={USER}"),
                "--auth=trust".to_owned(),
                "--encoding=UTF8".to_owned(),
                "--locale=C".to_owned(),
                // Only a machine that loses power could tell, and then the copy is lost too.
                "--no-sync".to_owned(),
            ],
            Self::Mysql => vec![
                "--no-defaults".to_owned(),
                format!("--datadir={data}"),
                "--auth-root-authentication-method=normal".to_owned(),
                "--skip-test-db".to_owned(),
                "--skip-name-resolve".to_owned(),
                "--innodb-log-file-size=64M".to_owned(),
            ],
        }
    }

    /// The arguments of the server itself.
    pub(crate) fn server_arguments(self, folder: &Path, port: u16, more: &[(String, String)]) -> Vec<String> {
        let data = data_folder(folder);
        let data = data.display();
        match self {
            Self::Postgres => {
                let own = [format!("port={port}"), format!("max_connections={CONNECTIONS_MAX}")];
                let more = more.iter().map(|(name, value)| format!("{name}={value}"));
                let settings = POSTGRES.into_iter().map(str::to_owned).chain(own).chain(more);
                ["-D".to_owned(), data.to_string()]
                    .into_iter()
                    .chain(settings.flat_map(|setting| ["-c".to_owned(), setting]))
                    .collect()
            }
            Self::Mysql => {
                let folder = folder.display();
                let own = [
                    // Must be the first.
                    "--no-defaults".to_owned(),
                    format!("--datadir={data}"),
                    format!("--port={port}"),
                    format!("--max-connections={CONNECTIONS_MAX}"),
                    format!("--tmpdir={folder}"),
                    format!("--pid-file={folder}/pid"),
                    format!("--init-file={folder}/{INIT_FILE}"),
                ];
                let more = more.iter().map(|(name, value)| format!("--{name}={value}"));
                own.into_iter().chain(MARIADB.into_iter().map(str::to_owned)).chain(more).collect()
            }
        }
    }

    /// What the server runs before it takes connections, and the file that it reads that from.
    pub(crate) fn init_file(self) -> Option<(&'static str, String)> {
        match self {
            Self::Postgres => None,
            Self::Mysql => {
                let user = format!("'{USER}'@'127.0.0.1'");
                let sql = format!(
                    "CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{PASSWORD}';\n\
                     GRANT ALL PRIVILEGES ON *.* TO {user} WITH GRANT OPTION;\n"
                );
                Some((INIT_FILE, sql))
            }
        }
    }

    /// The signals of a graceful end, and of the last one.
    pub(crate) const fn signals(self) -> [&'static str; 2] {
        match self {
            Self::Postgres => ["INT", "QUIT"],
            Self::Mysql => ["TERM", "KILL"],
        }
    }

    /// What the URLs begin with.
    pub(crate) const fn scheme(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
        }
    }

    /// A database that every server has.
    pub(crate) const fn maintenance_database(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
        }
    }
}

const INIT_FILE: &str = "init.sql";

/// Within a server's folder.
pub(crate) fn data_folder(folder: &Path) -> std::path::PathBuf {
    folder.join("data")
}

/// What tells one freshly installed data folder from another.
pub(crate) fn fingerprint(kind: Kind, binaries: &Binaries, version: &str) -> String {
    format!("{kind} {version} {} {:?}", binaries.install.display(), kind.install_arguments(Path::new("data")))
}
