//! One private server: its folder, its port, its process.

use std::{
    collections::BTreeSet,
    fs,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::{
    Kind,
    account::Account,
    database, find,
    settings::{self, PASSWORD, USER},
    supervisor::Supervisor,
    template,
};

/// A healthy server answers in a second or two, one that recovers from a kill soon after.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// One that does not answer within this, after it could not write, is taken for dead.
const REVIVES_WITHIN: Duration = Duration::from_secs(10);
/// Below the ports that systems give to outgoing connections: a port must still be free when its server is restarted.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const PORT_TRIES_MAX: u32 = 20;
const PORT_INTERVAL: Duration = Duration::from_millis(50);
const TAIL_LINES: usize = 40;

/// What differs from a usual server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Settings of the server, by name, on top of the usual ones.
    pub settings: Vec<(String, String)>,
    /// Where its folder is made; by default among the temporary files.
    pub parent: Option<PathBuf>,
}

/// A private server. Dropped, it is ended and its folder removed; the same happens when this process ends in any way.
///
/// Every method blocks, and may be called inside and outside of any runtime.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    port: u16,
    folder: PathBuf,
    running: Mutex<Running>,
    databases: AtomicU32,
}

#[derive(Debug)]
struct Running {
    supervisor: Supervisor,
    pid: Option<u32>,
}

impl Server {
    /// Starts a server, and waits until it answers.
    ///
    /// # Errors
    /// [`NotInstalled`](super::NotInstalled), or it does not start: then with the end of its log.
    pub fn start(kind: Kind) -> anyhow::Result<Self> {
        Self::start_with(kind, &Options::default())
    }

    /// As [`Server::start`], with options.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(kind: Kind, options: &Options) -> anyhow::Result<Self> {
        let mut tries = 0;
        loop {
            let port = free_port()?;
            match Self::start_on(kind, options, port) {
                // Somebody was quicker. Whoever has the port may even have answered in the server's place.
                Err(_) if !is_free(port) && tries < PORT_TRIES_MAX => tries += 1,
                started => return started,
            }
        }
    }

    fn start_on(kind: Kind, options: &Options, port: u16) -> anyhow::Result<Self> {
        let binaries = find::binaries(kind)?;
        let account = Account::current()?;
        let parent = options.parent.clone().unwrap_or_else(template::base_folder);
        let temporary = tempfile::Builder::new().prefix("tcc-server-").tempdir_in(&parent)?;
        let folder = temporary.path().to_owned();
        account.own(&folder)?;
        template::unpack(kind, &binaries, account, &folder)?;
        if let Some((name, sql)) = kind.init_file() {
            fs::write(folder.join(name), sql)?;
        }
        let arguments = kind.server_arguments(&folder, port, &options.settings);
        let supervisor = Supervisor::new(kind, account, &folder, &binaries.server, &arguments)?;
        // The shell removes it from here on.
        let _ = temporary.keep();
        let running = Mutex::new(Running { supervisor, pid: None });
        let server = Self { kind, port, folder, running, databases: AtomicU32::new(0) };
        server.run(&mut server.running())?;
        Ok(server)
    }

    fn run(&self, running: &mut Running) -> anyhow::Result<()> {
        running.pid = Some(running.supervisor.start()?);
        let url = self.url(self.kind.maintenance_database());
        database::await_ready(self.kind, &url, READY_WITHIN, || running.supervisor.is_alive())
            .with_context(|| format!("{} on port {}; the end of its log:\n{}", self.kind, self.port, self.log_tail()))
    }

    /// Kills it and all its backends (SIGKILL); returns when they are gone. Does nothing if it is not running.
    ///
    /// # Errors
    /// Its supervisor is gone.
    pub fn kill(&self) -> anyhow::Result<()> {
        let mut running = self.running();
        running.supervisor.kill()?;
        running.pid = None;
        Ok(())
    }

    /// Asks it to end, which cuts its connections; returns when it has. Does nothing if it is not running.
    ///
    /// # Errors
    /// It ended with an error.
    pub fn stop(&self) -> anyhow::Result<()> {
        let mut running = self.running();
        let code = running.supervisor.stop()?;
        running.pid = None;
        ensure!(code == 0, "{} ended with {code}; the end of its log:\n{}", self.kind, self.log_tail());
        Ok(())
    }

    /// Brings it back on its former data and port, and waits until it answers. A server that is running is killed first.
    ///
    /// # Errors
    /// It does not start: then with the end of its log.
    pub fn restart(&self) -> anyhow::Result<()> {
        let mut running = self.running();
        running.supervisor.kill()?;
        running.pid = None;
        let give_up = Instant::now() + READY_WITHIN;
        while !is_free(self.port) {
            ensure!(Instant::now() < give_up, "port {} was taken while {} was down", self.port, self.kind);
            std::thread::sleep(PORT_INTERVAL);
        }
        self.run(&mut running)
    }

    /// From now on neither it nor a process that it starts can write a file beyond so many bytes; `None`: however long. That is harder
    /// than a full disk: what is there cannot be written over either, and the server may end of it. Does nothing if it is not running.
    ///
    /// # Errors
    /// There is no `prlimit` on this machine.
    pub fn limit_files(&self, bytes: Option<u64>) -> anyhow::Result<()> {
        self.running().supervisor.limit_files(bytes)
    }

    /// Brings it back if it has ended by itself, or does not answer any more.
    ///
    /// # Errors
    /// It does not start: then with the end of its log.
    pub fn revive(&self) -> anyhow::Result<()> {
        let url = self.url(self.kind.maintenance_database());
        let answers = {
            let mut running = self.running();
            database::await_ready(self.kind, &url, REVIVES_WITHIN, || running.supervisor.is_alive())
        };
        if answers.is_ok() { Ok(()) } else { self.restart() }
    }

    /// Makes a fresh, empty database; returns its URL.
    ///
    /// # Panics
    /// The server is not running. Tests, for which this is, have nothing better to do then.
    #[must_use]
    pub fn create_database(&self) -> String {
        match self.try_create_database() {
            Ok(url) => url,
            Err(error) => panic!("cannot create a database: {error:#}; the end of the server's log:\n{}", self.log_tail()),
        }
    }

    /// As [`Server::create_database`].
    ///
    /// # Errors
    /// The server is not running.
    pub fn try_create_database(&self) -> anyhow::Result<String> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("tcc_{number}");
        database::execute(self.kind, &self.url(self.kind.maintenance_database()), &format!("CREATE DATABASE {name}"))?;
        Ok(self.url(&name))
    }

    /// The URL of one of its databases, with user and password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("{}://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.kind.scheme(), self.port)
    }

    /// Which database it speaks.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its process; `None`: killed or stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running().pid
    }

    /// Where it listens on 127.0.0.1, for as long as it exists.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its data is.
    #[must_use]
    pub fn data_folder(&self) -> PathBuf {
        settings::data_folder(&self.folder)
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        log_tail(&self.folder.join("log"))
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // A test that panicked while it held this has not broken what the shell knows.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_tail(file: &Path) -> String {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A port of 127.0.0.1 that is free, and that systems do not give to outgoing connections: it can be listened on again later.
/// No port is given twice by one process, and processes that start together are unlikely to be given the same.
///
/// # Errors
/// None is free.
pub fn free_port() -> anyhow::Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let random = RandomState::new().hash_one(given.len());
    let width = u64::from(PORTS.end - PORTS.start);
    for step in 0..width {
        let offset = u16::try_from((random.wrapping_add(step)) % width)?;
        let port = PORTS.start + offset;
        if is_free(port) && given.insert(port) {
            return Ok(port);
        }
    }
    bail!("no port of {PORTS:?} is free")
}
