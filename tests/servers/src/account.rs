//! As whom a server runs: database servers refuse to run as root, so root lends them the account `nobody`.

use std::{os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::{Context, ensure};

const UNPRIVILEGED: &str = "nobody";

/// Who runs the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    /// Whoever runs the tests.
    Own,
    /// Root runs the tests; the servers run as this user and group.
    Lent { user: u32, group: u32 },
}

impl Account {
    pub(crate) fn current() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        Ok(Self::Lent { user: id("-u")?, group: id("-g")? })
    }

    /// The id of the user that owns the servers' files.
    pub(crate) fn user(self) -> u32 {
        match self {
            Self::Own => rustix::process::geteuid().as_raw(),
            Self::Lent { user, .. } => user,
        }
    }

    /// A command that runs as this account, in a process group of its own: Ctrl-C in the terminal is for the tests, which then
    /// end their servers.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.process_group(0);
        match self {
            Self::Own => {}
            // Given a user by root, the standard library also clears the supplementary groups.
            Self::Lent { user, group } => {
                command.uid(user).gid(group);
            }
        }
        command
    }

    /// Gives a path to this account.
    pub(crate) fn own(self, path: &Path) -> anyhow::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Lent { user, group } => std::os::unix::fs::chown(path, Some(user), Some(group))
                .with_context(|| format!("cannot give {} to {UNPRIVILEGED}", path.display())),
        }
    }
}

fn id(flag: &str) -> anyhow::Result<u32> {
    let output = Command::new("id").args([flag, UNPRIVILEGED]).output().context("cannot run `id`")?;
    ensure!(output.status.success(), "there is no user {UNPRIVILEGED}: run the tests as a user other than root");
    String::from_utf8_lossy(&output.stdout).trim().parse().context("`id` printed no number")
}
