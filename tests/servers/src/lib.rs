//! Private PostgreSQL and MariaDB servers for tests: in a temporary folder, on a free port of 127.0.0.1, never as root, with
//! everything on that makes commits durable. They can be killed and restarted, and they are gone with the process that started
//! them, however it ends.
//!
//! Only for tests. A server that is not installed is an error that says how to install it, never a reason to skip a test.

mod account;
mod database;
mod find;
mod server;
mod settings;
mod supervisor;
mod template;

use std::{fmt, sync::OnceLock};

pub use find::NotInstalled;
pub use server::{Options, Server, free_port};
pub use settings::{PASSWORD, USER};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// PostgreSQL.
    Postgres,
    /// MariaDB, which speaks MySQL's protocol.
    Mysql,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Postgres, Self::Mysql];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MariaDB",
        })
    }
}

/// The one server of its kind that the tests of this process share, started at its first use. Tests that share it neither kill
/// it nor change its settings; each makes a database of its own.
///
/// # Panics
/// It is not installed, or does not start. The message says what to do.
pub fn shared(kind: Kind) -> &'static Server {
    static POSTGRES: OnceLock<Server> = OnceLock::new();
    static MYSQL: OnceLock<Server> = OnceLock::new();
    let server = match kind {
        Kind::Postgres => &POSTGRES,
        Kind::Mysql => &MYSQL,
    };
    server.get_or_init(|| Server::start(kind).unwrap_or_else(|error| panic!("{error:#}")))
}
