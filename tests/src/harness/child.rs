//! One process of the cluster: started from the cluster's own binary, watched through its pipes, ended by signals.
//!
//! The child tells on its standard output, one JSON object on a line, what its parent waits for. Its standard input is a pipe
//! that the parent never writes to: when it ends, the parent is gone and the child ends too.

use std::{
    fs::{File, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{self, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::Role;

/// A child that has not reported by then never will: opening and migrating a database takes far less, also on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A child ends within its drain time and a little; past this it hangs.
const EXIT_WITHIN: Duration = Duration::from_secs(60);
/// A port may be taken for a moment by somebody else: a start tries again for so long.
const PORT_WITHIN: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// What carries a child's configuration.
pub(crate) const CONFIG_VARIABLE: &str = "TCC_CLUSTER_CONFIG_JSON";
const EVENTS_MAX: usize = 64;
const TAIL_LINES: usize = 40;

/// What a child tells its parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// It serves here.
    Ready(SocketAddr),
    /// It reached this fail point, and stands still there.
    Parked(String),
}

/// How to start one.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) binary: PathBuf,
    pub(crate) role: Role,
    pub(crate) config_json: String,
    pub(crate) park_at: Option<String>,
    /// A limit on its files is an error to it, not its end.
    pub(crate) disk_may_fill: bool,
    pub(crate) log_file: PathBuf,
}

impl Launch {
    /// Starts a process and waits until it serves, or stands still at its fail point.
    pub(crate) async fn start(&self) -> anyhow::Result<Child> {
        let give_up = Instant::now() + PORT_WITHIN;
        loop {
            match Child::start(self).await {
                Ok(child) => return Ok(child),
                Err(error) if format!("{error:#}").contains("cannot listen on") && Instant::now() < give_up => {
                    sleep(POLL_INTERVAL).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn command(&self) -> Command {
        if !self.disk_may_fill {
            return Command::new(&self.binary);
        }
        // What a shell ignores, the program that it becomes ignores too; ours may not set signals without unsafe code.
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"trap '' XFSZ; exec "$@""#, "sh"]).arg(&self.binary);
        shell
    }
}

/// A child ended before it was ready.
#[derive(Debug, thiserror::Error)]
#[error("{role} ended ({status}) before it was ready; the end of its log:\n{log_tail}")]
pub struct Exited {
    /// Which.
    pub role: Role,
    /// How.
    pub status: ExitStatus,
    /// The last lines of its log.
    pub log_tail: String,
}

/// A running process of the cluster. Killed when dropped.
#[derive(Debug)]
pub struct Child {
    role: Role,
    process: process::Child,
    events: mpsc::Receiver<Event>,
    log_file: PathBuf,
    address: SocketAddr,
    parked: Option<String>,
    // Held here: tokio would close it before the first wait for the end, and so bring the end about.
    _stdin: ChildStdin,
    _reader: JoinSet<()>,
}

impl Child {
    async fn start(launch: &Launch) -> anyhow::Result<Self> {
        let log = open_log(&launch.log_file)?;
        let mut command = launch.command();
        // Not as an argument: those are for everybody to read, and database URLs have passwords.
        command.args(["role", launch.role.name()]).env(CONFIG_VARIABLE, &launch.config_json);
        if let Some(point) = &launch.park_at {
            command.args(["--park-at", point]);
        }
        // A process group of its own: Ctrl-C in the terminal reaches the parent only, which then ends its children in order.
        let mut process = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", launch.binary.display()))?;
        let stdout = process.stdout.take().context("the child has no standard output")?;
        let stdin = process.stdin.take().context("the child has no standard input")?;
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let mut reader = JoinSet::new();
        reader.spawn(read_events(stdout, tell));

        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut child = Self {
            role: launch.role,
            process,
            events,
            log_file: launch.log_file.clone(),
            address: unknown,
            parked: None,
            _stdin: stdin,
            _reader: reader,
        };
        child.await_ready().await?;
        Ok(child)
    }

    async fn await_ready(&mut self) -> anyhow::Result<()> {
        let event = timeout(READY_WITHIN, self.events.recv()).await;
        match event {
            Ok(Some(Event::Ready(address))) => {
                self.address = address;
                Ok(())
            }
            // A point of recovery, reached before it serves.
            Ok(Some(Event::Parked(point))) => {
                self.parked = Some(point);
                Ok(())
            }
            Ok(None) => {
                let status = self.wait().await?;
                Err(Exited { role: self.role, status, log_tail: self.log_tail() }.into())
            }
            Err(_) => bail!("{} is not ready after {READY_WITHIN:?}; the end of its log:\n{}", self.role, self.log_tail()),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it stands still at its fail point. Cancel-safe.
    ///
    /// # Errors
    /// It ended before.
    pub async fn parked(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(point) = &self.parked {
                return Ok(point.clone());
            }
            match self.events.recv().await {
                Some(Event::Parked(point)) => self.parked = Some(point),
                Some(Event::Ready(address)) => self.address = address,
                None => bail!("{} ended before it reached its fail point", self.role),
            }
        }
    }

    /// Ends it at once (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.start_kill().with_context(|| format!("cannot kill {}", self.role))?;
        self.wait().await?;
        Ok(())
    }

    /// Asks it to end gracefully (SIGTERM); does not wait.
    ///
    /// # Errors
    /// It is gone already.
    pub fn ask_to_end(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Freezes it (SIGSTOP): calls to it stay under way until it is killed, or goes on.
    ///
    /// # Errors
    /// It is gone already.
    pub(crate) fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT), as if nothing had been.
    ///
    /// # Errors
    /// It is gone already.
    pub(crate) fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// From now on it can write no file beyond so many bytes; `None`: as far as its parent can.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) -> anyhow::Result<()> {
        let ours = getrlimit(Resource::Fsize);
        let limit = Rlimit { current: bytes.or(ours.current), maximum: ours.maximum };
        prlimit(Some(self.id()?), Resource::Fsize, limit)
            .with_context(|| format!("cannot limit the files of {}", self.role))?;
        Ok(())
    }

    fn id(&self) -> anyhow::Result<Pid> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        id.with_context(|| format!("{} has ended already", self.role))
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.id()?;
        rustix::process::kill_process(id, signal).with_context(|| format!("cannot signal {}", self.role))
    }

    /// Waits until it is gone. Cancel-safe.
    ///
    /// # Errors
    /// It does not end.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        match timeout(EXIT_WITHIN, self.process.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} has not ended after {EXIT_WITHIN:?}; the end of its log:\n{}", self.role, self.log_tail()),
        }
    }

    /// How it has ended by itself; `None`: it runs.
    pub(crate) fn has_ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// Waits, without a limit, until it has ended by itself. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        log_tail(&self.log_file)
    }
}

pub(crate) fn log_tail(file: &Path) -> String {
    let text = std::fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot open {}", path.display()))
}

async fn read_events(stdout: ChildStdout, tell: mpsc::Sender<Event>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // Anything else on standard output is for people.
        let Ok(event) = serde_json::from_str(&line) else { continue };
        if tell.send(event).await.is_err() {
            return;
        }
    }
}
