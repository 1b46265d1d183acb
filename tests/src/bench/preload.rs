//! The small library that counts fsyncs: built with the C compiler that is there, and preloaded into this process started anew,
//! whose children (servers, databases) inherit it. Without a compiler fsyncs are not counted, and the report says so.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

const SOURCE: &str = include_str!("preload/fsync.c");
/// Where the counters are; that it is set is how the process that was started anew knows itself.
const FILE_VARIABLE: &str = "TCC_BENCH_FSYNC_FILE";
const DELAY_VARIABLE: &str = "TCC_BENCH_FSYNC_DELAY_US";
const PRELOAD_VARIABLE: &str = "LD_PRELOAD";
const COUNTERS_BYTES: u64 = 16;

/// Where fsyncs of this process and its children are counted; `None`: they are not.
pub(crate) fn counted_in() -> Option<PathBuf> {
    std::env::var_os(FILE_VARIABLE).map(PathBuf::from)
}

/// The library, in a folder that goes with it.
#[derive(Debug)]
pub(crate) struct Library(TempDir);

impl Library {
    /// Runs this very command again with the library, and waits for its end.
    ///
    /// # Errors
    /// This binary cannot be started.
    pub(crate) async fn start_anew(&self, delay_us: u32) -> anyhow::Result<ExitCode> {
        let before = std::env::var_os(PRELOAD_VARIABLE).unwrap_or_default();
        let mut preload = self.0.path().join("fsync.so").into_os_string();
        if !before.is_empty() {
            preload.push(":");
            preload.push(before);
        }
        let mut anew = tokio::process::Command::new(std::env::current_exe()?);
        anew.args(std::env::args_os().skip(1));
        anew.env(PRELOAD_VARIABLE, preload);
        anew.env(FILE_VARIABLE, self.0.path().join("counters")).env(DELAY_VARIABLE, delay_us.to_string());
        let status = anew.kill_on_drop(true).status().await.context("this binary cannot be started anew")?;
        // Ended by a signal: a failure as any other.
        Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2)))
    }
}

/// Builds it. Everybody may read the folder and write the counters: database servers may run as another user than this process.
///
/// # Errors
/// There is no C compiler, or this system knows no preloading.
pub(crate) fn build() -> anyhow::Result<Library> {
    ensure!(cfg!(target_os = "linux"), "fsyncs are counted on Linux only");
    let folder = tempfile::Builder::new().prefix("tcc-bench-").tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let counters = folder.path().join("counters");
    File::create(&counters)?.set_len(COUNTERS_BYTES)?;
    fs::set_permissions(&counters, Permissions::from_mode(0o666))?;
    let source = folder.path().join("fsync.c");
    fs::write(&source, SOURCE)?;
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(folder.path().join("fsync.so")).arg(&source).arg("-ldl");
    let output = compiler.output().context("there is no C compiler `cc`")?;
    ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    fs::set_permissions(folder.path().join("fsync.so"), Permissions::from_mode(0o755))?;
    Ok(Library(folder))
}
