//! The shell that stands between this process and its server: it does what it is told over a pipe, and when the pipe ends, because
//! this process has ended in whatever way, it ends the server and removes its folder.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use anyhow::{Context, ensure};

use super::{Kind, account::Account};

const SCRIPT: &str = include_str!("supervise.sh");

#[derive(Debug)]
pub(crate) struct Supervisor {
    process: Child,
    words: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Supervisor {
    /// Stands by to run this server in this folder, which is its own from now on.
    pub(crate) fn new(
        kind: Kind,
        account: Account,
        folder: &Path,
        server: &Path,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let mut shell = account.command(Path::new("sh"));
        shell.args(["-c", SCRIPT, "tcc-servers"]).arg(folder).args(kind.signals()).arg(server).args(arguments);
        // What this process was told of other servers is not for this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("PG"))) {
            shell.env_remove(name);
        }
        shell.env("LC_ALL", "C").current_dir(folder);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = shell.spawn().context("cannot start a shell")?;
        let words = process.stdin.take().context("the shell has no standard input")?;
        let answers = process.stdout.take().context("the shell has no standard output")?;
        Ok(Self { process, words: Some(words), answers: BufReader::new(answers) })
    }

    /// Starts the server; returns its process id.
    pub(crate) fn start(&mut self) -> anyhow::Result<u32> {
        let answer = self.tell("start")?;
        answer.strip_prefix("started ").and_then(|pid| pid.parse().ok()).with_context(|| format!("the shell said {answer:?}"))
    }

    /// Whether the server's process is there.
    pub(crate) fn is_alive(&mut self) -> anyhow::Result<bool> {
        Ok(self.tell("check")? == "alive")
    }

    /// From now on the server and its children can write no file beyond so many bytes.
    pub(crate) fn limit_files(&mut self, bytes: Option<u64>) -> anyhow::Result<()> {
        let bytes = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let answer = self.tell(&format!("limit {bytes}"))?;
        ensure!(answer == "limited", "the files of the server cannot be limited, which needs prlimit of util-linux");
        Ok(())
    }

    /// Kills the server and all its backends (SIGKILL), and waits until they are gone.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        let answer = self.tell("kill")?;
        ensure!(answer == "gone", "the shell said {answer:?}");
        Ok(())
    }

    /// Asks the server to end, and waits until it has; returns its exit code.
    pub(crate) fn stop(&mut self) -> anyhow::Result<i32> {
        let answer = self.tell("stop")?;
        answer.strip_prefix("ended ").and_then(|code| code.parse().ok()).with_context(|| format!("the shell said {answer:?}"))
    }

    fn tell(&mut self, word: &str) -> anyhow::Result<String> {
        let words = self.words.as_mut().context("the server's shell was let go")?;
        words.write_all(format!("{word}\n").as_bytes()).context("the server's shell is gone")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "the server's shell is gone");
        Ok(answer.trim_end().to_owned())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.words.take());
        // Once it is gone, the server and its folder are.
        let _ = self.process.wait();
    }
}
