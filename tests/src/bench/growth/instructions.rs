//! Counts the instructions of the system's processes, under callgrind, where that is installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

/// A program that is ours, under callgrind as long as that is wanted.
#[derive(Debug)]
pub(crate) struct Counted {
    program: PathBuf,
    folder: PathBuf,
    /// As long as this is there, whoever starts counts.
    mark: PathBuf,
}

impl Counted {
    /// `None`: callgrind is not installed.
    pub(crate) fn new(binary: &Path, folder: &Path) -> anyhow::Result<Option<Self>> {
        let there = Command::new("valgrind").args(["--tool=callgrind", "--version"]).output();
        if !there.is_ok_and(|output| output.status.success()) {
            return Ok(None);
        }
        let counted =
            Self { program: folder.join("counted"), folder: folder.join("counts"), mark: folder.join("count-instructions") };
        fs::create_dir_all(&counted.folder)?;
        let (binary, folder, mark) = (binary.display(), counted.folder.display(), counted.mark.display());
        // Processes know no difference: arguments, pipes, signals and the process's number are the same.
        let script = format!(
            "#!/bin/sh\n[ -e '{mark}' ] || exec '{binary}' \"$@\"\nexec valgrind --quiet --tool=callgrind --fair-sched=yes \
             --callgrind-out-file='{folder}/%p' '{binary}' \"$@\"\n"
        );
        fs::write(&counted.program, script).context("cannot write the program that counts")?;
        fs::set_permissions(&counted.program, fs::Permissions::from_mode(0o755))?;
        Ok(Some(counted))
    }

    /// What processes are to be started from.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Whoever starts from now on counts, or not.
    pub(crate) fn count(&self, wanted: bool) -> anyhow::Result<()> {
        if wanted {
            fs::write(&self.mark, "")?;
        } else {
            fs::remove_file(&self.mark)?;
        }
        Ok(())
    }

    /// What the processes counted that have ended since the last call, together.
    ///
    /// # Errors
    /// Not as many as they must have been.
    pub(crate) fn take(&self, processes: usize) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        let mut found = 0;
        for entry in fs::read_dir(&self.folder)? {
            let file = entry?.path();
            let count = total(&fs::read_to_string(&file)?);
            sum += count.with_context(|| format!("{} has no total", file.display()))?;
            found += 1;
            fs::remove_file(&file)?;
        }
        ensure!(found == processes, "{found} processes counted their instructions, not {processes}");
        Ok(sum)
    }
}

fn total(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_read() {
        assert_eq!(total("version: 1\nfn=(1)\n3 4\n\ntotals: 123456\n"), Some(123_456.0));
        assert_eq!(total("version: 1\n"), None);
    }
}
